"""The audit log of a repository: a line of JSON for each change, each with the hash of the line before it.

    .releases/audit.jsonl       the lines
    .releases/audit.head.json   how many there are, the last one's hash, and signatures of both

A line that was changed or removed no longer fits the hash in the next one; the last line is held by the head file. Each
file that says which release is live names the line before its own, so that a log whose end or whole is gone, with its
head file or without, or that was begun anew, is found too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from export.errors import PublishError
from export.releases.store import FOLDER, Live, Store

FIRST = "0" * 64  # stands in the first line for the hash of the line before


class Line(BaseModel, frozen=True, extra="forbid"):
    """One change of a repository.

    Attributes:
        line: its number in the log, from 1.
        at: when, UTC, ISO 8601.
        by, host: who did it, on which machine.
        what: the command: publish, promote, rollback, retune, import, prune; repair for one that was killed; return
            where a promotion failed after the switch, and what was live is again.
        category, release: what it was done to, the release by its number.
        reason: as it was given.
        live: which release of the category was live afterwards, and which one before; None for none.
        record: SHA-256 of the release's record; None where it is gone.
        files: SHA-256 of further files that it wrote and that no record names, by their path in the repository.
        key: the public key of who signed; None for nobody.
        broken: that the log did not fit its head when this line was added, a sentence; empty as a rule.
        previous: SHA-256 of the line before, without the line's end.
    """

    line: int
    at: str
    by: str
    host: str
    what: str
    category: str
    release: int
    reason: str
    live: Live | None
    record: str | None
    files: dict[str, str] = {}
    key: str | None = None
    broken: str = ""
    previous: str

    def to_bytes(self) -> bytes:
        """The line without its end."""
        return self.model_dump_json().encode()


class Head(BaseModel, frozen=True, extra="forbid"):
    """What the log's head file says.

    Attributes:
        lines: how many the log has.
        sha256: of the last one.
        signatures: of both, by public key.
    """

    lines: int
    sha256: str
    signatures: dict[str, str] = {}

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return f"{self.lines} {self.sha256}".encode()

    def to_bytes(self) -> bytes:
        """As a file."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True)
class AuditLog:
    """The log of a repository, as its two files are now.

    Attributes:
        root: the repository.
        raw: the lines without their ends; what follows the last line's end is one too.
        whole: whether the last line has its end.
        head: the head file's content, empty where there is none.
        anchors: of each file that says which release is live: itself, how many lines the log had, and the last's hash.
    """

    root: Path
    raw: tuple[bytes, ...]
    whole: bool
    head: bytes
    anchors: tuple[tuple[Path, int, str], ...] = ()

    @classmethod
    def read(cls, root: Path) -> AuditLog:
        """Read both files; where they are not, the log is empty.

        Raises:
            PublishError: one cannot be read.
        """
        content, head = _bytes_of(log_path(root)), _bytes_of(head_path(root))
        lines = content.split(b"\n")
        whole = not lines[-1]
        return cls(root, tuple(lines[:-1] if whole else lines), whole, head, tuple(_anchors_of(root)))

    @property
    def expected_head(self) -> Head:
        """The head of these lines, unsigned."""
        return Head(lines=len(self.raw), sha256=hash_of(self.raw[-1]) if self.raw else FIRST)

    def stated_head(self) -> Head | None:
        """The head that its file states; None where there is none, or none that can be read."""
        try:
            return Head.model_validate_json(self.head)
        except ValidationError:
            return None

    def lines(self) -> list[Line | None]:
        """Each line; None for one that cannot be read."""
        return [_parsed(raw) for raw in self.raw]

    def misfit(self) -> str | None:
        """How the log differs from what other files know of it, a sentence without a full stop; None where they fit.

        A line beyond the head that fits the one before is no misfit: its writer was stopped between the two files.
        """
        return self.misfit_of_head() or self.misfit_of_anchors()

    def misfit_of_anchors(self) -> str | None:
        """How the log differs from what the files that say which release is live know of it; see `misfit`."""
        log = log_path(self.root)
        for path, n_lines, sha256 in self.anchors:
            if n_lines > len(self.raw):
                state = f"has {len(self.raw)} lines" if self.raw else "is gone or empty"
                return (
                    f"{log} {state}, and {path} is of a time when it had {n_lines}: what it held was removed"
                )
            if sha256 != (hash_of(self.raw[n_lines - 1]) if n_lines else FIRST):
                return f"line {n_lines} of {log} is another one than {path} names: the log was changed or begun anew"
        return None

    def misfit_of_head(self) -> str | None:
        """How the log differs from its head file; see `misfit`."""
        stated, expected = self.stated_head(), self.expected_head
        if stated is None:
            if not self.raw and not self.head:
                return None
            state = "cannot be read" if self.head else "is gone"
            return f"{head_path(self.root)}, which says how the audit log ends, {state}"
        if not self.whole:
            return f"{log_path(self.root)} ends within line {len(self.raw)}"
        if (stated.lines, stated.sha256) == (expected.lines, expected.sha256) or self.one_ahead(stated):
            return None
        if stated.lines > expected.lines:
            return (
                f"{log_path(self.root)} has {expected.lines} lines, and {head_path(self.root)} says {stated.lines}: "
                "the end was cut off"
            )
        if stated.lines < expected.lines:
            return f"{log_path(self.root)} has {expected.lines} lines, and {head_path(self.root)} says {stated.lines}"
        return f"the last line of {log_path(self.root)} was changed, or {head_path(self.root)} was"

    def one_ahead(self, head: Head) -> bool:
        """Whether the log is a head's, and one line that follows."""
        if len(self.raw) != head.lines + 1:
            return False
        before = hash_of(self.raw[-2]) if head.lines else FIRST
        last = _parsed(self.raw[-1])
        return before == head.sha256 and last is not None and last.previous == before


def _anchors_of(root: Path) -> Iterator[tuple[Path, int, str]]:
    """What each file that says which release is live knows of the log; see `AuditLog.anchors`."""
    store = Store(root)
    for path in sorted((root / FOLDER / "live").glob("*.json")):
        with suppress(PublishError):  # one that cannot be read is told elsewhere
            live = store.live(path.stem)
            if live is not None and live.log_lines is not None and live.log_sha256 is not None:
                yield path, live.log_lines, live.log_sha256


def log_path(root: Path) -> Path:
    """The file of lines."""
    return root / FOLDER / "audit.jsonl"


def head_path(root: Path) -> Path:
    """The file that says how the log ends."""
    return root / FOLDER / "audit.head.json"


def hash_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _parsed(raw: bytes) -> Line | None:
    try:
        return Line.model_validate(json.loads(raw))
    except (ValueError, RecursionError):  # pydantic's errors too
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise PublishError(
            f"{path} cannot be read ({error.strerror or error}); let this user read it, or restore it."
        ) from None
