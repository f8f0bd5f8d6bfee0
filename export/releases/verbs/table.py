"""All releases of a repository, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from export.errors import PublishError
from export.releases.record import Record
from export.releases.store import Live, Store
from export.releases.switch import live_of

WIDE = 130  # characters of a line of a table: one that is folded cannot be read
COLUMNS = (
    "category",
    "number",
    "release",
    "when",
    "data",
    "precision",
    "platform",
    "AUROC",
    "threshold",
    "live",
)

# What an entry holds; see `releases_of`.
KEYS = (
    "category",
    "number",
    "release_id",
    "weights_id",
    "by",
    "host",
    "at",
    "why",
    "dataset",
    "data_fingerprint",
    "precision",
    "platform",
    "image_size",
    "auroc",
    "threshold",
    "retuned_from",
    "live",
    "fault",
)


def releases_of(root: Path, category: str | None = None) -> list[dict[str, Any]]:
    """What is known of each release, by category and number; of one category where it is named.

    Of a record that cannot be read, `fault` says why in a sentence, and what it would say is None; so it does with
    every release of a category of which nobody knows which one is live.

    Raises:
        PublishError: there is no release.
    """
    store = Store(root)
    categories = sorted({*store.categories(), *store.known_live()}) if category is None else [category]
    found = [entry for name in categories for entry in _entries(store, name)]
    if not found:
        of = f" of {category!r}" if category else ""
        raise PublishError(
            f"{root} holds no release{of}; publish one with `make export CATEGORY={category or 'pill'}`."
        )
    return found


def faults_of(entries: Iterable[dict[str, Any]]) -> list[str]:
    """What is wrong with releases, a sentence each."""
    return list(dict.fromkeys(entry["fault"] for entry in entries if entry["fault"]))


def _entries(store: Store, category: str) -> list[dict[str, Any]]:
    live, unknown, numbers = None, None, store.numbers(category)
    try:
        live = live_of(store, category)
    except PublishError as error:
        unknown = error.message
    entries = []
    for number in sorted({*numbers, *([live.number] if live else [])}):
        mark = "?" if unknown else _mark(live, number)
        try:
            entries.append(_entry(store.read(category, number), mark, unknown))
        except PublishError as error:
            nothing = dict.fromkeys(KEYS)
            known = {"category": category, "number": number, "live": mark, "fault": error.message}
            entries.append(nothing | known)
    return entries


def wide_console() -> Console:
    """A console whose lines are long enough for a table of releases, whatever the terminal's."""
    console = Console()
    console.width = max(console.width, WIDE)
    return console


def releases_table(entries: Iterable[dict[str, Any]]) -> Table:
    """A line for each release."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in COLUMNS:
        right = heading in ("number", "AUROC", "threshold")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for entry in entries:
        auroc, threshold = entry["auroc"], entry["threshold"]
        table.add_row(
            entry["category"],
            str(entry["number"]),
            "damaged" if entry["release_id"] is None else str(entry["release_id"]),
            (entry["at"] or "")[:16].replace("T", " "),
            entry["dataset"],
            entry["precision"],
            entry["platform"],
            "" if auroc is None else f"{auroc:.4f}",
            "" if threshold is None else f"{threshold:.4g}",
            entry["live"],
        )
    return table


def _mark(live: Live | None, number: int) -> str:
    return {live.number: "live", live.before: "before"}.get(number, "") if live else ""


def _entry(record: Record, live: str, fault: str | None) -> dict[str, Any]:
    provenance = record.manifest.provenance
    return {
        "category": record.category,
        "number": record.number,
        "release_id": record.release_id,
        "weights_id": record.weights_id,
        **record.published.model_dump(),
        "dataset": provenance.dataset,
        "data_fingerprint": provenance.data_fingerprint,
        "precision": record.manifest.precision,
        "platform": record.platform.name,
        "image_size": record.calibration.image_size,
        "auroc": record.auroc,
        "threshold": record.calibration.image_threshold,
        "retuned_from": record.retuned_from,
        "live": live,
        "fault": fault,
    }
