"""Whether the record of a release is the one that was published, and whose signatures it bears."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.errors import PublishError
from export.releases.audit.entries import SIGNS, Act, note
from export.releases.audit.log import AuditLog, Line, hash_of
from export.releases.audit.signatures import (
    PACKED,
    RECORD,
    is_valid,
    read_signatures,
    short,
    signatures_path,
)
from export.releases.changes import Changes
from export.releases.record import Record, parse_record
from export.releases.store import Live, Store

NEW = ("publish", "retune", "import")  # commands that write a record


@dataclass
class Logged:
    """What a log says of a repository as it is to be now.

    Attributes:
        records: number of the line that states a release's record, and the hash, by category and number.
        keys: who signed it, as the log says.
        live: the line that states which release of a category is live, by category.
        files: hash of further files, by their path.
    """

    records: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    keys: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    live: dict[str, Line] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[Line | None]) -> Logged:
        """What the lines that can be read come to."""
        logged = cls()
        for line in lines:
            if line is not None:
                logged._take(line)
        return logged

    def _take(self, line: Line) -> None:
        release = (line.category, line.release)
        if line.what == "prune":
            self.records.pop(release, None)
            self.keys.pop(release, None)
        elif line.record is not None and (line.what in NEW or release not in self.records):
            if release in self.records and self.records[release][1] != line.record:
                self.keys.pop(release, None)
            self.records[release] = (line.line, line.record)
        if line.record is not None and line.key is not None and line.what in SIGNS:
            self.keys.setdefault(release, set()).add(line.key)
        self.live[line.category] = line
        self.files |= line.files

    def pointer(self, category: str) -> Live | None:
        """What the log says is live of a category."""
        return self.live[category].live if category in self.live else None


def record_faults(
    store: Store,
    category: str,
    number: int,
    logged: Logged,
    known: Mapping[str, Path] | None = None,
) -> list[str]:
    """What is wrong with a record's file and signatures, a sentence each without a full stop.

    Args:
        store: the repository's records.
        category, number: of the release.
        logged: what the log says.
        known: public keys, by which each record must be signed, and their files; None asks for no signature.
    """
    path = store.record_path(category, number)
    try:
        content = path.read_bytes()
    except OSError as error:
        return [f"{path} cannot be read ({error.strerror or error}); restore it"]
    faults = []
    stated = logged.records.get((category, number))
    if stated is None:
        faults.append(
            f"{path} stands in no line of the audit log: its command was stopped, or it came from elsewhere; publish "
            "that release again, or promote it"
        )
    elif stated[1] != hash_of(content):
        faults.append(f"{path} is not the record that line {stated[0]} of the audit log names; restore it")
    try:
        signatures = read_signatures(signatures_path(path))
    except PublishError as error:
        return [*faults, error.message.rstrip(".")]
    faults += [
        f"{signatures_path(path)}: the signature by key {short(key)} does not fit {path.name}; restore both"
        for key, signature in signatures.items()
        if not is_valid(key, signature, RECORD, content)
    ]
    faults += [
        f"{path} was signed by key {short(key)}, and {signatures_path(path).name} has no such signature; restore it"
        for key in sorted(logged.keys.get((category, number), set()) - signatures.keys())
    ]
    if known is None or known.keys() & signatures.keys():
        return faults
    packed, packed_faults = _packed_signatures(path)
    if not known.keys() & packed.keys():
        packed_faults.append(_unsigned(path, {**signatures, **packed}, known))
    return [*faults, *packed_faults]


def _packed_signatures(path: Path) -> tuple[dict[str, str], list[str]]:
    """Signatures of a record as it was packed elsewhere, where it is this release but for its place here."""
    packed = path.with_name(path.name + PACKED)
    if not packed.is_file():
        return {}, []
    try:
        content, signatures = packed.read_bytes(), read_signatures(signatures_path(packed))
        if _elsewhere(parse_record(packed)) != _elsewhere(parse_record(path)):
            return {}, [f"{packed} is the record of another release than {path.name}; restore both"]
    except PublishError as error:
        return {}, [error.message.rstrip(".")]
    faults = [
        f"{signatures_path(packed)}: the signature by key {short(key)} does not fit {packed.name}; restore both"
        for key, signature in signatures.items()
        if not is_valid(key, signature, RECORD, content)
    ]
    return ({} if faults else signatures), faults


def _elsewhere(record: Record) -> str:
    """What of a record does not depend on the repository that holds it: all but numbers, and its student's name."""
    placed: Any = {"serial": True, "number": True, "retuned_from": True, "steps": {"__all__": {"version"}}}
    text = record.model_dump_json(exclude=placed)
    student = record.steps["student"].model
    for quote in ('"', '\\"'):
        text = text.replace(f"{quote}{student}{quote}", '"student"')
    return text


def _unsigned(path: Path, signatures: Collection[str], known: Mapping[str, Path]) -> str:
    keys = " or ".join(str(file) for file in known.values())
    if not signatures:
        return f"{path} is not signed; expected a signature by {keys}"
    by = " and ".join(map(short, signatures))
    return f"{path} is signed by an unknown key, {by}; expected one by {keys}"


def require_untouched(root: Path, record: Record) -> None:
    """A record is the one that was published, and its signatures fit.

    Raises:
        PublishError: it is not, in a sentence.
    """
    logged = Logged.of(AuditLog.read(root).lines())
    release = (record.category, record.number)
    if release not in logged.records:  # its publisher was killed before it wrote the line
        path = Store(root).record_path(*release)
        logged.records[release] = (0, hash_of(path.read_bytes()))
    if faults := record_faults(Store(root), *release, logged):
        raise PublishError(f"{faults[0]}.")


def note_killed(changes: Changes, root: Path) -> None:
    """Add the line of a command that was killed between what it made live and its line, where there was one.

    Call it last, as `note`, and only where a command is known to have been killed: it is the log that is put right.
    """
    store, logged = Store(root), Logged.of(AuditLog.read(root).lines())
    for category, live in store.all_live().items():
        if not live.agrees_with(logged.pointer(category)) or (category, live.number) not in logged.records:
            act = Act("the command that made it live was killed before it wrote its line")
            try:
                record = store.read(category, live.number)
            except PublishError:  # it is named by whoever asks what is live
                continue
            note(changes, root, "repair", record, act)
            return  # one command changes one category
