"""The files that say what is live are those of the live records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.verification import Logged
from export.releases.record import Record
from export.releases.store import FOLDER, Live, Store


def check_pointers(store: Store, logged: Logged) -> tuple[dict[str, Live], list[str]]:
    """Which release of each category is live, and what is wrong with the files that say so."""
    pointers, faults = {}, []
    folder = store.root / FOLDER / "live"
    names = {path.stem for path in folder.glob("*.json")} | {
        category for category, line in logged.live.items() if line.live is not None
    }
    for category in sorted(names):
        path, expected = store.live_path(category), logged.pointer(category)
        try:
            live = store.live(category)
        except PublishError as error:
            faults.append(error.message.rstrip("."))
            continue
        if live is not None:
            pointers[category] = live
        if live != expected and not (live is not None and live.agrees_with(expected)):
            faults.append(_misfit(store, category, live, expected, logged))
        elif live is not None and path.read_bytes() != live.to_json().encode():
            faults.append(
                f"{path} was changed: it is not as it was written; promote release {live.number} again"
            )
        elif live is not None and not store.record_path(category, live.number).is_file():
            faults.append(f"{path} says that release {live.number} is live, whose record is gone; restore it")
    return pointers, faults


def _misfit(store: Store, category: str, live: Live | None, expected: Live | None, logged: Logged) -> str:
    if category not in logged.live:
        return f"{store.live_path(category)} is of a category that the audit log does not know; remove it"
    found = "is gone" if live is None else f"says {_said(live)}"
    return (
        f"{store.live_path(category)} {found}, and line {logged.live[category].line} of the audit log says "
        f"{_said(expected)}; promote one of them again"
    )


def _said(live: Live | None) -> str:
    if live is None:
        return "that none is live"
    before = f", {live.before} before" if live.before else ""
    loaded = f", with {live.loaded} loaded" if live.loaded else ""
    return f"that release {live.number} is live{before}{loaded}"


def calibration_faults(
    store: Store, live: Mapping[str, Record], records: Sequence[Record], *, all_known: bool
) -> list[str]:
    """Calibrations that are not those of a record.

    Args:
        store: the repository's.
        live: the live record of each category.
        records: all that could be read.
        all_known: whether these are all records, so that a calibration of none of them is one of nobody.
    """
    faults = []
    for record in live.values():
        path = store.calibration_path(record.weights_id)
        # Two categories of the same weights share the file: the one that was written last counts.
        expected = [_calibration(other) for other in live.values() if other.weights_id == record.weights_id]
        if (content := _read(path)) is None:
            faults.append(f"{path} of {_named(record)} is gone; promote it again")
        elif content not in expected:
            faults.append(
                f"{path} is not the calibration of {_named(record)}, which is live; promote it again"
            )
    if not all_known:
        return faults
    used = {record.weights_id for record in live.values()}
    others = {_calibration(record): record.weights_id for record in records}
    for path in sorted((store.root / FOLDER / "calibrations").glob("*")):
        if path.stem in map(str, used):
            continue
        if str(others.get(_read(path) or b"")) != path.stem:
            faults.append(f"{path} is the calibration of no record; remove it")
    return faults


def _calibration(record: Record) -> bytes:
    return replace(record.calibration, release_id=record.release_id).to_json().encode()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _named(record: Record) -> str:
    return f"release {record.number} of {record.category!r}"
