"""Add a line to the audit log, in one step with the other changes of a command, or on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.log import FIRST, AuditLog, Head, Line, hash_of, head_path, log_path
from export.releases.audit.signatures import (
    HEAD,
    PACKED,
    RECORD,
    Signer,
    is_valid,
    read_signatures,
    signatures_path,
    signatures_to_bytes,
)
from export.releases.changes import Changes, unwritable
from export.releases.record import Published, Record, published_now
from export.releases.store import Live, Store
from train.errors import StorageError
from train.support.files import replacing


@dataclass(frozen=True)
class Act:
    """Why something is done, and who signs it; nobody where no key is stated."""

    reason: str = ""
    signer: Signer | None = None


NO_ACT = Act()
SIGNS = (
    "publish",
    "retune",
    "promote",
    "rollback",
    "import",
)  # commands that sign a record; others sign the log alone


def append(root: Path, what: str, category: str, number: int, reason: str = "") -> str | None:
    """Add a line about a release, once all that the command changed is in place; the repository's lock is held.

    The record's hash, and what is live, are taken from the repository.

    Args:
        root: the repository.
        what: the command: `import`, `prune`.
        category: the product.
        number: of the release.
        reason: as it was given.

    Returns:
        That the clock was set back, a sentence without a full stop; None as a rule.

    Raises:
        PublishError: the log cannot be read or written.
    """
    added = _added(root, what, category, number, Act(reason), staged={})
    try:
        for path, content in ((log_path(root), added.log), (head_path(root), added.head)):
            with replacing(path) as temporary:
                temporary.write_bytes(content)
    except StorageError as error:
        cause = error.__cause__
        raise (
            unwritable(root, cause) if isinstance(cause, OSError) else PublishError(error.message)
        ) from None
    return added.clock


def note(changes: Changes, root: Path, what: str, record: Record, act: Act = NO_ACT) -> str | None:
    """Add a line, and sign the record where a key is stated, together with changes; call it last, else as `append`.

    Raises:
        PublishError: the log cannot be read.
    """
    category, number = record.category, record.number
    staged = {target: path for path, target in changes.moves} | dict(changes.removed)  # these not there yet
    path = Store(root).record_path(category, number)
    if act.signer is not None and what in SIGNS:
        content = _content(path, staged) or b""
        beside = signatures_path(path)
        kept = _valid(read_signatures(staged.get(beside, beside)), content)
        signatures = kept | {act.signer.key: act.signer.sign(RECORD, content)}
        changes.write(beside, signatures_to_bytes(signatures))
    log = AuditLog.read(root)
    pointer = Store(root).live_path(category)
    if pointer in staged and staged[pointer].is_file():  # else it goes: nothing is live then
        live = Live(**json.loads(staged[pointer].read_bytes()))
        known = log.expected_head
        live = replace(live, log_lines=known.lines, log_sha256=known.sha256)
        changes.write(pointer, live.to_json().encode())
    added = _added(root, what, category, number, act, staged)
    changes.write(log_path(root), added.log)
    changes.write(head_path(root), added.head)
    return added.clock


def is_noted(root: Path, record: Record) -> bool:
    """Whether a line of the log holds the hash of a release's record; a publisher may have been killed before."""
    release = (record.category, record.number)
    lines = AuditLog.read(root).lines()
    return any(line and line.record and (line.category, line.release) == release for line in lines)


@dataclass(frozen=True)
class _Added:
    """The log's two files with one more line, and that the clock was set back."""

    log: bytes
    head: bytes
    clock: str | None


def _added(
    root: Path, what: str, category: str, number: int, act: Act, staged: Mapping[Path, Path]
) -> _Added:
    """The log with a line about a repository in which files that are staged are in place, by where they are to go."""
    log, now, store = AuditLog.read(root), published_now(act.reason), Store(root)
    record = None if what == "prune" else _content(store.record_path(category, number), staged)
    live = _content(store.live_path(category), staged)
    line = Line(
        line=len(log.raw) + 1,
        at=now.at,
        by=now.by,
        host=now.host,
        what=what,
        category=category,
        release=number,
        reason=act.reason,
        live=_live(live),
        record=None if record is None else hash_of(record),
        files={
            str(target.relative_to(root)): hash_of(path.read_bytes())
            for target, path in staged.items()
            if path.is_file() and (target.parent.name == "warmup" or target.suffix == PACKED)
        },
        key=act.signer and act.signer.key,
        broken=log.misfit() or "",
        previous=hash_of(log.raw[-1]) if log.raw else FIRST,
    )
    head = Head(lines=line.line, sha256=hash_of(line.to_bytes()))
    if act.signer is not None:
        signature = act.signer.sign(HEAD, head.statement)
        head = head.model_copy(update={"signatures": {act.signer.key: signature}})
    content = b"".join(raw + b"\n" for raw in (*log.raw, line.to_bytes()))
    return _Added(content, head.to_bytes(), _clock_set_back(log, now))


def _content(path: Path, staged: Mapping[Path, Path]) -> bytes | None:
    """Of a file that is staged, or else of one that is there; None where there is none."""
    path = staged.get(path, path)
    return path.read_bytes() if path.is_file() else None


def _live(content: bytes | None) -> Live | None:
    """What a file says is live; None where there is none, or none that can be read."""
    try:
        return None if content is None else Live(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None


def _valid(signatures: Mapping[str, str], content: bytes) -> dict[str, str]:
    return {key: sig for key, sig in signatures.items() if is_valid(key, sig, RECORD, content)}


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
