"""The audit log holds together: no line was cut, changed, removed or added by hand, and no clock was set back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from export.releases.audit.entries import earlier
from export.releases.audit.log import FIRST, AuditLog, Line, hash_of, head_path, log_path
from export.releases.audit.signatures import HEAD, is_valid, short
from export.releases.checks.findings import Findings

BEGINNINGS = ("publish", "import", "repair")  # commands that need no release to be there


def check_log(log: AuditLog, findings: Findings, known: Mapping[str, Path] | None = None) -> None:
    """Add what is wrong with a log.

    Args:
        log: of the repository.
        findings: take it.
        known: public keys, one of which the log's end must be signed by, and their files; None asks for no signature.
    """
    lines = log.lines()
    findings.lines = len(lines)
    findings.faults += [*present_faults(log, known), *past_faults(log)]
    read = [line for line in lines if line]
    findings.notes += [
        f"line {after.line} of {log_path(log.root)} is of {after.at}, before line {before.line}, which is of "
        f"{before.at}: the clock of {after.host} or {before.host} was set wrong"
        for before, after in pairwise(read)
        if earlier(after.at, before.at)
    ]


def present_faults(log: AuditLog, known: Mapping[str, Path] | None = None) -> list[str]:
    """Where a log's lines, its head and what else knows of it do not fit now; see `check_log`."""
    faults = [*_chain_faults(log, log.lines()), *_head_faults(log, known)]
    if log.anchors and not log.raw:
        faults.append(f"{log_path(log.root)}, the audit log, is gone or empty; restore it")
    elif not faults and (misfit := log.misfit_of_anchors()):
        faults.append(f"{misfit}; restore it")
    return faults


def past_faults(log: AuditLog) -> list[str]:
    """That something was lost before a line of a log was added, which no later line mends."""
    lines, path = log.lines(), log_path(log.root)
    faults = [
        f"line {line.line} of {path} was added to a log that did not fit: {line.broken}"
        for line in lines
        if line and line.broken
    ]
    first = lines[0] if lines else None
    if first and first.line == 1 and first.what not in BEGINNINGS and not faults:
        faults.append(
            f"line 1 of {path} is a {first.what} of release {first.release} of {first.category!r}, before which there "
            "was another line: it was removed, or the command that was to write it was killed; restore it"
        )
    return faults


def _chain_faults(log: AuditLog, lines: list[Line | None]) -> list[str]:
    path, faults, expected = log_path(log.root), [], FIRST
    for index, (raw, line) in enumerate(zip(log.raw, lines, strict=True)):
        number = index + 1
        if line is None:
            faults.append(f"line {number} of {path} was changed: it is no line of an audit log; restore it")
        elif line.previous != expected:
            faults.append(_misfit(path, number, line, lines[index - 1] if index else None))
        expected = hash_of(raw)
    return [fault for fault in faults if fault]


def _misfit(path: Path, number: int, line: Line, before: Line | None) -> str:
    """A line that does not fit the one before it."""
    last = before.line if before is not None else number - 1
    if line.line > last + 1:
        gone = f"line {last + 1}" if line.line == last + 2 else f"lines {last + 1} to {line.line - 1}"
        return f"{gone} of {path} {'was' if line.line == last + 2 else 'were'} removed; restore it"
    if number > 1 and before is None:
        return ""  # that one is told already
    changed = f"line {number - 1}" if number > 1 else "line 1"
    return f"{changed} of {path} was changed: its hash is not the one that line {number} holds; restore it"


def _head_faults(log: AuditLog, known: Mapping[str, Path] | None) -> list[str]:
    path, faults = head_path(log.root), []
    if misfit := log.misfit_of_head():
        faults.append(f"{misfit}; restore it")
    stated = log.stated_head()
    if stated is None:
        return faults
    if stated.to_bytes() != log.head:
        faults.append(f"{path} was changed: it is not as it was written; restore it")
    faults += [
        f"{path}: the signature by key {short(key)} does not fit; restore it"
        for key, signature in stated.signatures.items()
        if not is_valid(key, signature, HEAD, stated.statement)
    ]
    if known is not None and not known.keys() & stated.signatures.keys():
        keys = " or ".join(map(str, known.values()))
        by = f"by an unknown key, {' and '.join(map(short, stated.signatures))}" if stated.signatures else ""
        faults.append(
            f"{path} is {f'signed {by}' if by else 'not signed'}; expected a signature by {keys}: promote the live "
            "release once more with --signing-key"
        )
    return faults
