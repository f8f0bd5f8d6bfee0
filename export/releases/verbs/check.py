"""Check a repository: all of it, or what is live before a server starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.log import AuditLog, log_path
from export.releases.audit.signatures import load_public_key
from export.releases.audit.verification import Logged
from export.releases.changes import STAGING
from export.releases.checks.configs import config_faults
from export.releases.checks.findings import Findings
from export.releases.checks.live import calibration_faults, check_pointers
from export.releases.checks.log import check_log, past_faults, present_faults
from export.releases.checks.records import (
    check_files,
    check_logged_files,
    lost_records,
    read_records,
    unnamed_versions,
)
from export.releases.record import Record
from export.releases.repository import Repository
from export.releases.store import Live, Store

TRIES = 3
WAIT_S = 0.5


def check(root: Path, public_keys: Sequence[Path] = ()) -> Findings:
    """Compare everything in a repository with its records, its audit log and its signatures.

    It takes no lock, since a repository may be read-only: what another command changes meanwhile is looked at again.

    Args:
        root: the repository.
        public_keys: files of public keys, by one of which each record and the log's end must be signed; none of them
            asks for no signature, and holds those that there are to the keys that they name.

    Raises:
        PublishError: the folder holds no release, or a key cannot be read.
    """
    known = {load_public_key(path): path for path in public_keys} or None
    for _ in range(TRIES - 1):
        head = AuditLog.read(root).head
        findings = _check_once(root, known)
        if not findings.faults or not (AuditLog.read(root).head != head or _staging(root)):
            return findings
        time.sleep(WAIT_S)
    return _check_once(root, known)


def _staging(root: Path) -> list[Path]:
    """The folders in which a command that is at work, or was stopped, keeps what it changes."""
    return sorted(root.glob(f"{STAGING}*"))


def _check_once(root: Path, known: Mapping[str, Path] | None) -> Findings:
    store, target = Store(root), Repository(root)
    log, findings = AuditLog.read(root), Findings()
    logged = Logged.of(log.lines())
    releases = [(category, number) for category in store.categories() for number in store.numbers(category)]
    if not releases and not log.raw:
        raise PublishError(f"{root} holds no release; publish one, or name another folder with --repository.")
    if releases and not log.raw and not log.anchors:  # else `check_log` tells it
        findings.faults.append(f"{log_path(root)}, the audit log, is gone or empty; restore it")
    check_log(log, findings, known)
    records = read_records(store, releases, logged, findings, known=known)
    findings.faults += lost_records(store, logged)
    check_files(target, records, findings)
    models = {step.model for record in records for step in record.steps.values()}
    check_logged_files(target, models, logged, findings)
    pointers, faults = check_pointers(store, logged)
    findings.faults += faults
    live = _live(pointers, records)
    findings.faults += calibration_faults(store, live, records, all_known=len(records) == len(releases))
    if not faults and len(records) == len(releases) and len(live) == len(pointers):
        findings.faults += config_faults(target, records)
        findings.notes += unnamed_versions(target, records)
    else:
        findings.notes.append("configurations were not compared: what they follow from is not whole")
    findings.notes += [
        f"{path} is of a command that is at work, or was stopped; then the next one removes it"
        for path in _staging(root)
    ]
    return findings


def require_signed(root: Path, public_keys: Sequence[Path]) -> None:
    """What a server would load is what its records say, and the live ones are signed by one of these keys.

    The audit log, which says what is live, holds together; see `_log_faults`.

    Args:
        root: the repository.
        public_keys: files of public keys.

    Raises:
        PublishError: something is not; the sentence names the first such file.
    """
    known = {load_public_key(path): path for path in public_keys}
    store, target, findings = Store(root), Repository(root), Findings()
    log = AuditLog.read(root)
    logged = Logged.of(log.lines())
    findings.faults += _log_faults(log, known)
    pointers, faults = check_pointers(store, logged)
    findings.faults += faults
    live = [(category, pointer.number) for category, pointer in pointers.items()]
    before = [
        (category, pointer.loaded)
        for category, pointer in pointers.items()
        if pointer.loaded in store.numbers(category)
    ]
    loaded = [(category, number) for category, number in (*live, *before) if number is not None]
    records = read_records(store, loaded, logged, findings, known=known, must_sign=loaded)
    check_files(target, records, findings)
    findings.faults += calibration_faults(store, _live(pointers, records), records, all_known=False)
    if not findings.faults:
        releases = [
            (category, number) for category in store.categories() for number in store.numbers(category)
        ]
        findings.faults += config_faults(target, read_records(store, releases, logged, Findings()))
    if not live and not findings.faults:
        findings.faults.append(f"no release is live in {root}")
    if faults := findings.faults:
        further = f" (and {len(faults) - 1} more: `python -m deploy check` lists them)" if faults[1:] else ""
        raise PublishError(f"Nothing is served: {faults[0]}{further}.")


def _log_faults(log: AuditLog, known: Mapping[str, Path]) -> list[str]:
    """What is wrong with the log that says what is live.

    Its end need not be signed: a machine at the line has no private key. Where one of these keys signed it after
    something was lost, that is vouched for.
    """
    stated = log.stated_head()
    vouched = stated is not None and known.keys() & stated.signatures.keys()
    return [*present_faults(log), *([] if vouched else past_faults(log))]


def _live(pointers: dict[str, Live], records: Sequence[Record]) -> dict[str, Record]:
    return {
        record.category: record
        for record in records
        if record.category in pointers and pointers[record.category].number == record.number
    }


def summary(findings: Findings) -> str:
    """What was checked, in a line."""
    return (
        f"Checked: {findings.records:,} records, {findings.signed:,} of them signed, {findings.files:,} files, and "
        f"{findings.lines:,} lines of the audit log."
    )
