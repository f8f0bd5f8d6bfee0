"""Add a line to the audit log, in one step with the other changes of a command, or on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from export.releases.audit.log import FIRST, AuditLog, Head, Line, hash_of, head_path, log_path
from export.releases.audit.signatures import HEAD, Signer
from export.releases.changes import Changes, unwritable
from export.releases.record import Published, published_now
from export.releases.store import Live, Store
from train.errors import StorageError
from train.support.files import replacing


@dataclass(frozen=True)
class Entry:
    """What a line is to say; see `export.releases.audit.log.Line`.

    Attributes:
        what: the command.
        category, release: what it is done to.
        reason: as it was given.
        live: what is live afterwards.
        record: the record's bytes; None where it is gone.
        files: further files that no record names, by their path in the repository.
        signer: of who signs.
    """

    what: str
    category: str
    release: int
    reason: str = ""
    live: Live | None = None
    record: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    signer: Signer | None = None


def append(
    root: Path, what: str, category: str, number: int, reason: str = "", signer: Signer | None = None
) -> str | None:
    """Add a line about a release, once all that the command changed is in place; the repository's lock is held.

    Args:
        root: the repository.
        what: the command: `import`, `prune`.
        category: the product.
        number: of the release; the line takes the record's hash, and what is live, from the repository.
        reason: as it was given.
        signer: of who signs.

    Returns:
        That the clock was set back, a sentence without a full stop; None as a rule.

    Raises:
        PublishError: the log cannot be read or written.
    """
    store = Store(root)
    path = store.record_path(category, number)
    record = path.read_bytes() if path.is_file() else None
    entry = Entry(what, category, number, reason, store.live(category), record, signer=signer)
    added = _Added.to(root, entry)
    try:
        for path, content in ((log_path(root), added.log), (head_path(root), added.head)):
            with replacing(path) as temporary:
                temporary.write_bytes(content)
    except StorageError as error:
        raise unwritable(
            root, error.__cause__ if isinstance(error.__cause__, OSError) else OSError(error.message)
        ) from None
    return added.clock


def note(changes: Changes, root: Path, entry: Entry) -> str | None:
    """Add a line together with changes that are put in place after this; otherwise as `append`.

    Raises:
        PublishError: the log cannot be read.
    """
    added = _Added.to(root, entry)
    changes.write(log_path(root), added.log)
    changes.write(head_path(root), added.head)
    return added.clock


@dataclass(frozen=True)
class _Added:
    """The log's two files with one more line, and that the clock was set back."""

    log: bytes
    head: bytes
    clock: str | None

    @classmethod
    def to(cls, root: Path, entry: Entry) -> _Added:
        log, now = AuditLog.read(root), published_now(entry.reason)
        line = Line(
            line=len(log.raw) + 1,
            at=now.at,
            by=now.by,
            host=now.host,
            what=entry.what,
            category=entry.category,
            release=entry.release,
            reason=entry.reason,
            live=entry.live,
            record=None if entry.record is None else hash_of(entry.record),
            files={path: hash_of(content) for path, content in entry.files.items()},
            key=entry.signer and entry.signer.key,
            broken=log.misfit() or "",
            previous=hash_of(log.raw[-1]) if log.raw else FIRST,
        )
        head = Head(lines=line.line, sha256=hash_of(line.to_bytes()))
        if entry.signer is not None:
            signature = entry.signer.sign(HEAD, head.statement)
            head = head.model_copy(update={"signatures": {entry.signer.key: signature}})
        content = b"".join(raw + b"\n" for raw in (*log.raw, line.to_bytes()))
        return cls(content, head.to_bytes(), _clock_set_back(log, now))


def _clock_set_back(log: AuditLog, now: Published) -> str | None:
    last = next((line for line in reversed(log.lines()) if line is not None), None)
    if last is None or not earlier(now.at, last.at):
        return None
    return (
        f"the clock of {now.host} says {now.at}, and line {last.line} of the audit log is of {last.at}: one of both "
        "was set wrong; set the clock"
    )


def earlier(at: str, than: str) -> bool:
    """Whether a time lies before another one; False where one is no time."""
    try:
        return datetime.fromisoformat(at) < datetime.fromisoformat(than)
    except (ValueError, TypeError):
        return False
