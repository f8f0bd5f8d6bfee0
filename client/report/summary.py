"""The figures of a run: for its page, and as the table that ends `make demo`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from client.console import printable, shown
from client.predictions.prediction import Prediction
from client.report.measures import ServedMeasures, measure

ONE_CLASS = "not available: the test set has one class"
NO_CLASS = "not available: no folder tells which images are good"


@dataclass(frozen=True)
class Speed:
    """What page and table show of a benchmark.

    Attributes:
        headings: of the columns of `rows`.
        rows: one line a measurement.
        p50_ratio: the ensemble's median latency divided by the bare chain's.
        default_p50_ratio: divided by that of the chain with ONNX Runtime's own defaults.
        provenance: what it was measured on.
        summary: names and figures for the table that ends a run.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    p50_ratio: float | None
    default_p50_ratio: float | None
    provenance: str
    summary: Sequence[tuple[str, str]]


def summary_table(
    predictions: Sequence[Prediction],
    *,
    metrics: dict[str, Any] | None,
    speed: Speed | None,
    report: Path,
) -> Table:
    """The figures a person wants to see at the end of a run."""
    measures = measure(predictions)
    table = Table(
        title=f"{escape(printable(predictions[0].category))}: from good images to a verdict over gRPC",
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("images judged", measures.counts)
    if measures.synthetic:
        table.add_row(
            "[yellow]data[/yellow]", "[yellow]SYNTHETIC: figures say nothing about a real product[/yellow]"
        )
    if metrics is not None:
        table.add_row(
            "trained on",
            f"{metrics['n_train']} good images in {metrics['seconds_train']:.0f} s, preset {metrics['preset']}",
        )
    missing = ONE_CLASS if measures.n_good + measures.n_anomalous else NO_CLASS
    for row in (*quality(measures, metrics, missing=missing), *(speed.summary if speed else ())):
        table.add_row(*row)
    table.add_row("release", ", ".join(map(str, measures.release_ids)))
    table.add_row("report", escape(printable(str(report))))
    folders = sorted({str(Path(entry.overlay).parent) for entry in predictions if entry.overlay})
    if folders:
        table.add_row("pictures", "\n".join(escape(printable(folder)) for folder in folders))
    return table


def quality(
    measures: ServedMeasures, metrics: dict[str, Any] | None, *, missing: str
) -> list[tuple[str, str]]:
    """Names and figures of how well the server judges; `missing` where the test set has one class."""
    rows = [("image AUROC, Triton", _share(measures.auroc, missing=missing))]
    if metrics is not None:
        figure = _share(metrics["image_auroc"], missing=missing)
        counts = metrics["n_test_good"], metrics["n_test_anomalous"]
        if counts != (measures.n_good, measures.n_anomalous):
            figure += f" of other images ({counts[0]} good, {counts[1]} defective)"
        rows.insert(0, ("image AUROC, PyTorch", figure))
    rows += [
        ("false rejects", _percent(measures.false_reject_rate)),
        ("escapes", _percent(measures.escape_rate)),
    ]
    own = measures.thresholds[0] if metrics is None else metrics["threshold"]
    if any(not math.isclose(threshold, own, rel_tol=1e-6) for threshold in measures.thresholds):
        given = ", ".join(f"{threshold:.4f}" for threshold in measures.thresholds)
        rows.append(("threshold", given if metrics is None else f"{given}; the release's own is {own:.4f}"))
    return rows


def _share(value: float | None, *, missing: str) -> str:
    """Four digits; less than all is not rounded to all."""
    return (
        "> 0.9999" if value is not None and 0.99995 <= value < 1 else shown(value, "{:.4f}", missing=missing)
    )


def _percent(rate: float | None) -> str:
    """A rate in per cent; one that is not 0 is not rounded to 0."""
    return "< 0.1 %" if rate is not None and 0 < rate < 0.0005 else shown(rate and 100 * rate, "{:.1f} %")
