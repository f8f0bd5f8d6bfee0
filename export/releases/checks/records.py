"""Each file is what the records say, and the folders of versions hold nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from export.errors import PublishError
from export.records import FileRecord
from export.releases.audit.log import hash_of
from export.releases.audit.signatures import PACKED, read_signatures, signatures_path
from export.releases.audit.verification import Logged, record_faults
from export.releases.checks.findings import Findings
from export.releases.files import CODE
from export.releases.record import Record
from export.releases.repository import Repository
from export.releases.store import Store

Release = tuple[str, int]  # category and number


def read_records(
    store: Store,
    releases: Iterable[Release],
    logged: Logged,
    findings: Findings,
    *,
    known: Mapping[str, Path] | None = None,
    must_sign: Iterable[Release] | None = None,
) -> list[Record]:
    """The records that others can be held to: those that are as the log names them; adds what is wrong with them.

    Args:
        store: has the records.
        releases: those to read.
        logged: what the audit log says.
        findings: take it.
        known: public keys, by one of which a record must be signed, and their files; None asks for no signature.
        must_sign: the releases that must be signed; None for all.
    """
    records = []
    signing = None if must_sign is None else set(must_sign)
    for category, number in releases:
        findings.records += 1
        keys = known if signing is None or (category, number) in signing else None
        faults = record_faults(store, category, number, logged, keys)
        path = store.record_path(category, number)
        try:
            if _is_logged(path, logged.records.get((category, number))):
                records.append(store.read(category, number))
        except PublishError as error:
            faults = faults or [error.message.rstrip(".")]
        findings.faults += faults
        findings.signed += _is_signed(store, category, number)
    return records


def _is_logged(path: Path, stated: tuple[int, str] | None) -> bool:
    """Whether a record is the one that the log names; where that names none, nothing speaks against it."""
    return stated is None or (path.is_file() and hash_of(path.read_bytes()) == stated[1])


def _is_signed(store: Store, category: str, number: int) -> bool:
    try:
        return bool(read_signatures(signatures_path(store.record_path(category, number))))
    except PublishError:
        return False


def lost_records(store: Store, logged: Logged) -> list[str]:
    """Records that the log names and that are gone."""
    return [
        f"{store.record_path(*release)}, which line {line} of the audit log names, is gone; restore it, or prune it "
        "with `python -m deploy prune`"
        for release, (line, _) in logged.records.items()
        if not store.record_path(*release).is_file()
    ]


def check_files(target: Repository, records: Iterable[Record], findings: Findings) -> None:
    """Add each file that is not what a record says, once, and each that no record names in the folder of a version."""
    named: dict[Path, dict[str, FileRecord]] = {}
    for record in records:
        for step in record.steps.values():
            folder = target.folder(step.model, step.version)
            files = named.setdefault(folder, {})
            of = f"release {record.number} of {record.category!r}"
            if not folder.is_dir():
                if not files:
                    findings.faults.append(
                        f"{folder} of {of} is gone; restore it, or publish that release again"
                    )
                    files["of a folder that is gone"] = FileRecord(sha256="", n_bytes=0)
                continue
            for name, file in step.files.items():
                if files.get(name) == file:
                    continue
                files[name] = file
                findings.files += 1
                if not file.describes(folder / name):
                    findings.faults.append(_what_is_wrong(folder / name, file, of))
    for folder, files in named.items():
        findings.faults += _further_files(folder, files)


def _what_is_wrong(path: Path, file: FileRecord, of: str) -> str:
    remedy = "restore it, or publish that release again"
    if not path.is_file():
        return f"{path} of {of} is gone; {remedy}"
    size = path.stat().st_size
    if size != file.n_bytes:
        return f"{path} is not the file of {of}: it has {size:,} bytes, and had {file.n_bytes:,}; {remedy}"
    return f"{path} is not the file of {of}: it was changed; {remedy}"


def _further_files(folder: Path, files: Mapping[str, FileRecord]) -> list[str]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [f"{path} belongs to no record; remove it" for path in there if path.name not in files]


def check_logged_files(target: Repository, models: Iterable[str], logged: Logged, findings: Findings) -> None:
    """Add each file that the audit log alone names, of a model that records name, and that is not what it says."""
    used = set(models)
    for name, expected in logged.files.items():
        path = target.root / name
        if path.suffix == PACKED:  # it goes with its record
            if not path.with_suffix("").is_file():
                continue
        elif Path(name).parts[0] not in used:
            continue
        findings.files += 1
        if not path.is_file():
            findings.faults.append(f"{path} is gone; publish a release over it again")
        elif hash_of(path.read_bytes()) != expected:
            findings.faults.append(f"{path} was changed; restore it, or publish a release over it again")


def unnamed_versions(target: Repository, records: Iterable[Record]) -> list[str]:
    """Folders of versions that no record names, a sentence each; the project's own code is none."""
    named: dict[str, set[int]] = {}
    for record in records:
        for step in record.steps.values():
            named.setdefault(step.model, set()).add(step.version)
    return [
        f"{target.folder(model, version)} belongs to no record and was not checked"
        for model, versions in sorted(named.items())
        for version in target.versions(model)
        if version not in versions and not (model in CODE and version == 1)
    ]
