"""Predictions as people see them: the most anomalous in a table, and all of them in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from client.console import printable
from client.predictions.prediction import Prediction

TABLE_ROWS = 20  # of a long list; the whole is in --jsonl, --csv and --report


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """A table of the predictions, most anomalous first; a long list is cut."""
    ordered = sorted(predictions, key=lambda entry: (not entry.anomalous, -entry.score))
    shown = ordered[:TABLE_ROWS]
    located = any(entry.defects is not None for entry in shown)
    title = f"{len(shown)} of {len(ordered)} images, most anomalous first"
    table = Table(title=title if len(shown) < len(ordered) else None)
    if any(entry.synthetic for entry in ordered):
        table.caption = "SYNTHETIC DATA: trained on rendered images"
    for heading in ("image", "verdict", "score", "threshold", "release", *(["defects"] if located else [])):
        justify: Literal["left", "right"] = "right" if heading in ("score", "threshold") else "left"
        table.add_column(heading, justify=justify, overflow="fold")  # a name that is cut says nothing
    for entry in shown:
        verdict = "[red]anomalous[/red]" if entry.anomalous else "[green]good[/green]"
        path = Path(entry.image)
        table.add_row(
            escape(printable(f"{path.parent.name}/{path.name}")),
            verdict,
            f"{entry.score:.4f}",
            f"{entry.threshold:.4f}",
            str(entry.release_id),
            *([_defects(entry)] if located else []),
        )
    return table


def _defects(entry: Prediction) -> str:
    """How many there are, and where the largest lies, in pixels of the original."""
    if not entry.defects:
        return "" if entry.defects is None else "none"
    largest = max(entry.defects, key=lambda defect: defect.area)
    place = f"{largest.width} x {largest.height} at {largest.left}, {largest.top}"
    return place if len(entry.defects) == 1 else f"{len(entry.defects)}, largest {place}"


def counts(predictions: Sequence[Prediction], *, n_images: int) -> str:
    """How many of `n_images` were judged, and as what; the others are neither good nor anomalous."""
    anomalous = sum(entry.anomalous for entry in predictions)
    missing = n_images - len(predictions)
    rest = f" {missing} of {n_images} not judged." if missing else ""
    return f"{len(predictions)} judged: {anomalous} anomalous, {len(predictions) - anomalous} good.{rest}"


def releases(predictions: Sequence[Prediction]) -> str | None:
    """That several releases have judged, where they have, and how many images each."""
    judged = Counter(entry.release_id for entry in predictions)
    if len(judged) < 2:
        return None
    parts = [f"{count} images by release {release}" for release, count in judged.items()]
    return f"The release changed during the run: {', then '.join(parts)}."
