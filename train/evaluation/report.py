"""The evaluation as a page: one HTML file with its pictures inside, which needs no network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_repository.image_size import size_text
from train.checkpoint.tensors import Checkpoint
from train.evaluation.breakdown import SIZES
from train.evaluation.evaluate import Evaluation
from train.evaluation.figures import (
    data_uri,
    extent_of,
    panels,
    pro_figure,
    roc_figure,
    score_histogram,
    training_figure,
)
from train.evaluation.known_defects import KnownSection
from train.fitting.losses import Losses
from train.support.files import readable_text
from train.support.pages import render_page

EXAMPLES_PER_KIND = 6


@dataclass(frozen=True)
class Gallery:
    """A titled row of pictures, each a data URI and its caption."""

    title: str
    pictures: list[tuple[str, str]]


def summary(metrics: dict[str, Any]) -> str:
    """The measures in one line, without those that are None."""
    labels = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
    parts = [f"{label} {metrics[key]:.4f}" for key, label in labels.items() if metrics[key] is not None]
    without = metrics["image_auroc_without_foreground"]
    if without is not None:
        parts[0] += f" with foreground {metrics['foreground']} and {without:.4f} without"
    parts.append(f"{metrics['n_test']} images")
    if metrics["n_broken"]:
        parts.append(
            f"{metrics['n_broken']} more could not be read{' or aligned' if metrics.get('aligned') else ''}"
        )
    return ", ".join(parts)


def render_report(
    evaluation: Evaluation,
    checkpoint: Checkpoint,
    losses: Losses | None = None,
    *,
    known: KnownSection | None = None,
) -> str:
    """The page as HTML text; `losses` are those of the checkpoint's training, where the run's folder has them.

    `known` says what known defects changed; None where there are none.

    For bytes of file names that are no UTF-8 see `readable_text`.
    """
    calibration = json.loads(checkpoint.calibration.to_json())
    page = render_page(
        "train.evaluation",
        "report.html.j2",
        metrics=evaluation.metrics,
        judged=evaluation.metrics["judged_on"],
        sizes=SIZES,
        image_size=size_text(checkpoint.config.image_size),
        config=checkpoint.config.model_dump(exclude={"regions"}),
        regions=evaluation.metrics.get("regions"),
        drawn_regions=str(checkpoint.config.regions),
        provenance=checkpoint.provenance.model_dump(),
        origin=checkpoint.provenance.model_dump(
            exclude={"versions", "category", "synthetic", "usual_scores", "known_defects"}
        ),
        calibration={
            key: calibration[key] for key in ("stage_weights", "image_threshold", "pixel_threshold")
        },
        plots=plots(evaluation, losses),
        galleries=galleries(evaluation),
        known=known,
    )
    return readable_text(page)


def plots(evaluation: Evaluation, losses: Losses | None) -> dict[str, str | None]:
    """The plots as data URIs, by name; None for one that the test set does not allow."""
    judged, pro = evaluation.judged, evaluation.metrics["pro"]
    marked = np.flatnonzero(judged.marked)
    curves = judged.pixels.curves(marked) if judged.pixels is not None and pro is not None else None
    return {
        "histogram": data_uri(score_histogram(judged, threshold=evaluation.metrics["threshold"])),
        "roc": data_uri(roc_figure(judged, curves)),
        "pro": None if curves is None else data_uri(pro_figure(curves, pro=pro)),
        "training": None if losses is None else data_uri(training_figure(losses)),
    }


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """The images to look at first: escapes, false rejects, and the clearest cases that were judged right."""
    judged = evaluation.judged
    defective, rejected, order = judged.labels, judged.rejected, np.argsort(judged.scores)
    usual = min(float(np.median(judged.verdict.anomaly_map)), evaluation.metrics["threshold"])
    kinds = (
        ("Worst escapes: defective, judged good", [i for i in order if defective[i] and not rejected[i]]),
        (
            "Worst false rejects: good, judged defective",
            [i for i in order[::-1] if not defective[i] and rejected[i]],
        ),
        ("Clearest catches", [i for i in order[::-1] if defective[i] and rejected[i]]),
        ("Best of the good", [i for i in order if not defective[i] and not rejected[i]]),
    )
    return [
        Gallery(
            title=f"{title} ({len(indices)})",
            pictures=[_picture(evaluation, int(index), usual=usual) for index in indices[:EXAMPLES_PER_KIND]],
        )
        for title, indices in kinds
    ]


def _picture(evaluation: Evaluation, index: int, *, usual: float) -> tuple[str, str]:
    """Image, mask, map and overlay of one image, and which it is."""
    judged = evaluation.judged
    seen = np.s_[:, :] if judged.shown is None else extent_of(judged.shown[index])
    mask = None if judged.masks is None else judged.masks[index][seen]
    figure = panels(
        evaluation.pixels[index][seen],
        judged.verdict.anomaly_map[index][seen],
        mask if mask is not None and mask.any() else None,
        usual=usual,
        threshold=evaluation.metrics["threshold"],
        inspected=None if judged.inspected is None else judged.inspected[index][seen],
    )
    item = judged.test[index]
    caption = f"{item.defect}/{item.path.name}: {judged.scores[index]:.3f}"
    return data_uri(figure, dpi=100), caption
