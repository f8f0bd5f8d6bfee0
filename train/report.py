"""The evaluation as a page: one file, no network, pictures inside."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from train.checkpoint import Checkpoint, load_checkpoint, read_header
from train.data import CategoryData
from train.evaluate import Evaluation, evaluate, is_up_to_date, write_metrics
from train.files import write_text
from train.foreground import load_foreground
from train.recalibration import recalibrate

GOOD_COLOUR, DEFECT_COLOUR = "#2a7f62", "#c8553d"
EXAMPLES_PER_KIND = 6


@dataclass(frozen=True)
class Gallery:
    """A titled row of pictures, each a data URI and its caption."""

    title: str
    pictures: list[tuple[str, str]]


def evaluate_category(
    data: CategoryData,
    *,
    run_dir: Path,
    device: torch.device,
    strict: bool,
    force: bool,
    foreground: str | None = None,
    weights_dir: Path | None = None,
) -> str:
    """Evaluate a category's checkpoint and write metrics.json and report.html, unless they are up to date.

    Args:
        data: holds the test set.
        run_dir: holds checkpoint.safetensors, takes the rest.
        device: where to compute.
        strict: a broken image stops the run.
        force: evaluate even when up to date.
        foreground: how the background is removed; None means the checkpoint's own way. Another one gets thresholds
            of its own, see `train.recalibration`.
        weights_dir: where SAM's weights may lie.

    Returns:
        One line that says what came out.

    Raises:
        UserError: no checkpoint, or no readable test image.
    """
    checkpoint_path, metrics_path, report_path = (
        run_dir / name for name in ("checkpoint.safetensors", "metrics.json", "report.html")
    )
    foreground = foreground or read_header(checkpoint_path).config.foreground
    up_to_date = (
        is_up_to_date(metrics_path, checkpoint_path=checkpoint_path, data=data, foreground=foreground)
        and report_path.is_file()
    )
    if up_to_date and not force:
        return f"Up to date: {report_path}"
    checkpoint = load_checkpoint(checkpoint_path)
    finder = load_foreground(foreground, weights_dir=weights_dir)
    if foreground != checkpoint.config.foreground:
        checkpoint = recalibrate(checkpoint, finder, data, device=device, strict=strict)
    evaluation = evaluate(checkpoint, data, foreground=finder, device=device, strict=strict)
    if evaluation is None:
        return f"No test images in {data.root / 'test'}: nothing to evaluate."
    write_text(report_path, render_report(evaluation, checkpoint))
    write_metrics(evaluation.metrics, metrics_path)
    return f"Evaluated: {summary(evaluation.metrics)}; {report_path}"


def summary(metrics: dict[str, Any]) -> str:
    """The measures in one line; those that cannot be had are left out."""
    names = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
    parts = [f"{label} {metrics[key]:.4f}" for key, label in names.items() if metrics[key] is not None]
    without = metrics["image_auroc_without_foreground"]
    if without is not None:
        parts[0] += f" with foreground {metrics['foreground']} and {without:.4f} without"
    return ", ".join([*parts, f"{metrics['n_test']} images"])


def render_report(evaluation: Evaluation, checkpoint: Checkpoint) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("train", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        metrics=evaluation.metrics,
        config=checkpoint.config.model_dump(),
        provenance=checkpoint.provenance.model_dump(),
        histogram=_data_uri(score_histogram(evaluation)),
        curve=_data_uri(roc_figure(evaluation)),
        galleries=galleries(evaluation),
        calibration=json.loads(checkpoint.calibration.to_json()),
    )


def score_histogram(evaluation: Evaluation) -> Figure:
    """Scores of good and defective images, and the threshold between them."""
    scores, labels = evaluation.verdict.pred_score[:, 0], evaluation.labels
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(scores.min(), scores.max(), 40).tolist()
    axes.hist(scores[~labels], bins=bins, color=GOOD_COLOUR, alpha=0.7, label=f"good ({(~labels).sum()})")
    axes.hist(scores[labels], bins=bins, color=DEFECT_COLOUR, alpha=0.7, label=f"defective ({labels.sum()})")
    axes.axvline(evaluation.metrics["threshold"], color="black", linestyle="--", label="threshold")
    axes.set(xlabel="image score", ylabel="images")
    axes.legend(frameon=False)
    return figure


def roc_figure(evaluation: Evaluation) -> Figure:
    """The image-level ROC curve; an empty frame where the test set has one class."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    if evaluation.metrics["image_auroc"] is not None:
        false_rejects, caught, _ = roc_curve(evaluation.labels, evaluation.verdict.pred_score[:, 0])
        axes.plot(false_rejects, caught, color=DEFECT_COLOUR)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.7, linestyle=":")
    axes.set(xlabel="good images rejected", ylabel="defects caught", xlim=(0, 1), ylim=(0, 1.01))
    return figure


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """The images that a person wants to see first: escapes, false rejects, and the clearest of each kind."""
    score, rejected = evaluation.verdict.pred_score[:, 0], evaluation.verdict.pred_label[:, 0]
    order = np.argsort(score)
    defective = evaluation.labels
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
            pictures=[_picture(evaluation, int(index)) for index in indices[:EXAMPLES_PER_KIND]],
        )
        for title, indices in kinds
    ]


def _picture(evaluation: Evaluation, index: int) -> tuple[str, str]:
    """Image, ground truth where there is one, and anomaly map over the image."""
    image, anomaly_map = evaluation.pixels[index], evaluation.verdict.anomaly_map[index]
    threshold = evaluation.metrics["threshold"]
    figure = Figure(figsize=(4.2, 2.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image)
    if evaluation.masks is not None and evaluation.masks[index].any():
        left.contour(evaluation.masks[index], levels=[0.5], colors="lime", linewidths=1)
    right.imshow(image)
    # The same colours on every picture: full scale is one and a half times the threshold.
    right.imshow(anomaly_map, cmap="inferno", alpha=0.55, vmin=0, vmax=1.5 * threshold)
    _contour(right, anomaly_map, threshold)
    for axes in (left, right):
        axes.set_axis_off()
    item = evaluation.test[index]
    caption = f"{item.defect}/{item.path.name}: {evaluation.verdict.pred_score[index, 0]:.3f}"
    return _data_uri(figure), caption


def _contour(axes: Any, anomaly_map: NDArray[np.float32], threshold: float) -> None:
    if anomaly_map.min() < threshold < anomaly_map.max():
        axes.contour(anomaly_map, levels=[threshold], colors="cyan", linewidths=1)


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
