"""The server's verdicts on a test set, as a page and as the table that ends `make demo`."""

from __future__ import annotations

import math
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from client.console import MISSING, printable, shown
from client.core.errors import ClientError
from client.files import write_text
from client.predictions.prediction import Prediction

PICTURES = 8  # of each kind
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


@dataclass(frozen=True)
class ServedMeasures:
    """Measures over the server's verdicts; None where there are no good or no defective images.

    `synthetic`: the judge was trained on rendered images.
    """

    n_images: int
    n_good: int
    n_anomalous: int
    auroc: float | None
    false_reject_rate: float | None
    escape_rate: float | None
    release_ids: list[int]
    thresholds: list[float]
    synthetic: bool

    @property
    def counts(self) -> str:
        """How many images were judged, and what they really are."""
        n_unknown = self.n_images - self.n_good - self.n_anomalous
        unknown = f", {n_unknown} unknown" if n_unknown else ""
        return f"{self.n_images} ({self.n_good} good, {self.n_anomalous} defective{unknown})"


def measure(predictions: Sequence[Prediction]) -> ServedMeasures:
    """Measure predictions whose folders tell what the images are.

    Raises:
        ClientError: no predictions.
    """
    if not predictions:
        raise ClientError("There are no predictions to report on; ask about images that can be read.")
    known = [entry for entry in predictions if entry.defect is not None]
    scores = np.array([entry.score for entry in known])
    defective = np.array([entry.defect != "good" for entry in known], bool)
    rejected = np.array([entry.anomalous for entry in known], bool)
    return ServedMeasures(
        n_images=len(predictions),
        n_good=int((~defective).sum()),
        n_anomalous=int(defective.sum()),
        auroc=auroc(scores, defective),
        false_reject_rate=float(rejected[~defective].mean()) if (~defective).any() else None,
        escape_rate=float((~rejected[defective]).mean()) if defective.any() else None,
        release_ids=sorted({entry.release_id for entry in predictions}),
        thresholds=sorted({entry.threshold for entry in predictions}),
        synthetic=any(entry.synthetic for entry in predictions),
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Share of (positive, negative) pairs in which the positive scores higher, ties counted half.

    This is the area under the ROC curve; scikit-learn, too heavy for a PC at the line, agrees in the tests.

    Raises:
        ClientError: a score is not finite, which would count as the highest.
    """
    if not np.isfinite(scores).all():
        raise ClientError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; no AUROC can be computed."
        )
    if positive.all() or not positive.any():
        return None
    negatives = np.sort(scores[~positive])
    below = np.searchsorted(negatives, scores[positive], side="left")
    not_above = np.searchsorted(negatives, scores[positive], side="right")
    return float((below + not_above).mean() / 2 / len(negatives))


def write_report(
    path: Path,
    *,
    predictions: Sequence[Prediction],
    metrics: dict[str, Any] | None,
    speed: Speed | None,
) -> None:
    """Write the page; it shows the predictions' overlays by links relative to itself.

    The AUROC of `metrics`, from metrics.json of `train evaluate`, is shown beside the server's.

    Raises:
        ClientError: no predictions.
    """
    measures = measure(predictions)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("client", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        category=predictions[0].category,
        measures=measures,
        tiles=[
            ("images", measures.counts if measures.n_good + measures.n_anomalous else str(measures.n_images)),
            *_quality(measures, metrics, missing=MISSING),
        ],
        speed=speed,
        galleries=_galleries(predictions),
        printable=printable,
        link=lambda overlay: urllib.parse.quote(os.fsencode(os.path.relpath(overlay, path.parent))),
    )
    write_text(path, page)


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
    for row in (*_quality(measures, metrics, missing=missing), *(speed.summary if speed else ())):
        table.add_row(*row)
    table.add_row("release", ", ".join(map(str, measures.release_ids)))
    table.add_row("report", escape(printable(str(report))))
    folders = sorted({str(Path(entry.overlay).parent) for entry in predictions if entry.overlay})
    if folders:
        table.add_row("pictures", "\n".join(escape(printable(folder)) for folder in folders))
    return table


def _quality(
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


@dataclass(frozen=True)
class _Gallery:
    """Some pictures under a title; `empty` is shown where there are none."""

    title: str
    pictures: list[Prediction]
    empty: str


def _galleries(predictions: Sequence[Prediction]) -> list[_Gallery]:
    """The mistakes, and some of the right verdicts; images that nobody knows by their score."""
    ordered = sorted(predictions, key=lambda entry: entry.score)
    unknown = [entry for entry in ordered if entry.defect is None]
    if len(unknown) == len(ordered):
        return [_gallery("Most anomalous", unknown[::-1]), _gallery("Least anomalous", unknown)]
    defective = [entry for entry in ordered if entry.defect not in (None, "good")]
    good = [entry for entry in ordered if entry.defect == "good"]
    kinds = {
        "Defects caught": [entry for entry in defective[::-1] if entry.anomalous],
        "Good images passed": [entry for entry in good if not entry.anomalous],
        "Escapes: defective, judged good": [entry for entry in defective if not entry.anomalous],
        "False rejects: good, judged anomalous": [entry for entry in good[::-1] if entry.anomalous],
    }
    if unknown:
        kinds["Unknown, most anomalous first"] = unknown[::-1]
    return [_gallery(f"{title} ({len(entries)})", entries) for title, entries in kinds.items()]


def _gallery(title: str, entries: Sequence[Prediction]) -> _Gallery:
    drawn = [entry for entry in entries if entry.overlay]
    return _Gallery(title, drawn[:PICTURES], "No pictures were drawn of them." if entries else "None.")
