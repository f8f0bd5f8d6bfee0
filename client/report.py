"""The server's verdicts on a test set, as a page and as the table that ends `make demo`."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from client.console import MISSING, shown
from client.files import write_text
from client.judging.errors import ClientError
from client.predictions import Prediction

PICTURES = 8  # of each kind
ONE_CLASS = "not available: the test set has one class"


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
    synthetic: bool


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
        synthetic=any(entry.synthetic for entry in predictions),
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Share of (positive, negative) pairs in which the positive scores higher, ties counted half.

    This is the area under the ROC curve; scikit-learn, too heavy for a PC at the line, agrees in the tests.
    """
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
        tiles=[("images", str(measures.n_images)), *_quality(measures, metrics, missing=MISSING)],
        speed=speed,
        galleries=_galleries(predictions),
        link=lambda overlay: urllib.parse.quote(os.path.relpath(overlay, path.parent)),
    )
    write_text(path, page)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json.

    Raises:
        ClientError: no such file, or no JSON object.
    """
    try:
        metrics = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ClientError(
            f"{path} holds no metrics ({error}); write it with `python -m train evaluate`."
        ) from None
    return metrics


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
        title=f"{predictions[0].category}: from good images to a verdict over gRPC", show_header=False
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row(
        "images judged", f"{measures.n_images} ({measures.n_good} good, {measures.n_anomalous} defective)"
    )
    if measures.synthetic:
        table.add_row(
            "[yellow]data[/yellow]", "[yellow]SYNTHETIC: figures say nothing about a real product[/yellow]"
        )
    if metrics is not None:
        table.add_row(
            "trained on",
            f"{metrics['n_train']} good images in {metrics['seconds_train']:.0f} s, preset {metrics['preset']}",
        )
    for row in (*_quality(measures, metrics, missing=ONE_CLASS), *(speed.summary if speed else ())):
        table.add_row(*row)
    table.add_row("release", ", ".join(map(str, measures.release_ids)))
    table.add_row("report", str(report))
    folders = sorted({str(Path(entry.overlay).parent) for entry in predictions if entry.overlay})
    if folders:
        table.add_row("pictures", "\n".join(folders))
    return table


def _quality(
    measures: ServedMeasures, metrics: dict[str, Any] | None, *, missing: str
) -> list[tuple[str, str]]:
    """Names and figures of how well the server judges; `missing` where the test set has one class."""
    aurocs = {"image AUROC, Triton": measures.auroc}
    if metrics is not None:
        aurocs = {"image AUROC, PyTorch": metrics["image_auroc"], **aurocs}
    rates = {"false rejects": measures.false_reject_rate, "escapes": measures.escape_rate}
    return [
        *((name, shown(auroc, "{:.4f}", missing=missing)) for name, auroc in aurocs.items()),
        *((name, shown(rate and 100 * rate, "{:.1f} %")) for name, rate in rates.items()),
    ]


def _galleries(predictions: Sequence[Prediction]) -> list[tuple[str, list[Prediction]]]:
    """Titled selections of pictures: the mistakes first."""
    drawn = sorted((entry for entry in predictions if entry.overlay), key=lambda entry: entry.score)
    if any(entry.defect is None for entry in drawn):
        return [("Most anomalous", drawn[::-1][:PICTURES]), ("Least anomalous", drawn[:PICTURES])]
    escapes = [entry for entry in drawn if entry.defect != "good" and not entry.anomalous]
    false_rejects = [entry for entry in drawn[::-1] if entry.defect == "good" and entry.anomalous]
    catches = [entry for entry in drawn[::-1] if entry.defect != "good" and entry.anomalous]
    passes = [entry for entry in drawn if entry.defect == "good" and not entry.anomalous]
    kinds = (
        ("Defects caught", catches),
        ("Good images passed", passes),
        ("Escapes: defective, judged good", escapes),
        ("False rejects: good, judged anomalous", false_rejects),
    )
    return [(f"{title} ({len(entries)})", entries[:PICTURES]) for title, entries in kinds]
