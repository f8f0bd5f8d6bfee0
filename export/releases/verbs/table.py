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
from export.releases.store import Store

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


def releases_of(root: Path, category: str | None = None) -> list[dict[str, Any]]:
    """What is known of each release, by category and number; of one category where it is named.

    Raises:
        PublishError: a record cannot be read, or there is no release.
    """
    store = Store(root)
    categories = store.categories() if category is None else [category]
    found = [_entry(record, _mark(store, record)) for name in categories for record in store.records(name)]
    if not found:
        of = f" of {category!r}" if category else ""
        raise PublishError(
            f"{root} holds no release{of}; publish one with `make export CATEGORY={category or 'pill'}`."
        )
    return found


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
        auroc = entry["auroc"]
        table.add_row(
            entry["category"],
            str(entry["number"]),
            str(entry["release_id"]),
            entry["at"][:16].replace("T", " "),
            entry["dataset"],
            entry["precision"],
            entry["platform"],
            "" if auroc is None else f"{auroc:.4f}",
            f"{entry['threshold']:.4g}",
            entry["live"],
        )
    return table


def _mark(store: Store, record: Record) -> str:
    live = store.live(record.category)
    if live is None:
        return ""
    return {live.number: "live", live.before: "before"}.get(record.number, "")


def _entry(record: Record, live: str) -> dict[str, Any]:
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
    }
