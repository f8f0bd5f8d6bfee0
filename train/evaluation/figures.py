"""The pictures of the report, as PNGs that stand inside the page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from train.evaluation.breakdown import JudgedSet
from train.evaluation.pixel_metrics import MAX_FALSE_POSITIVE_RATE, PixelCurves
from train.fitting.losses import Losses
from train.support.pages import png_uri

GOOD_COLOUR, DEFECT_COLOUR, INK, FAINT = "#2a7f62", "#c8553d", "#2b2f36", "#9aa1ab"
CURVE_SIZE = (4.2, 3.5)
SMOOTHED_STEPS = 10  # of the training loss


def score_histogram(judged: JudgedSet, *, threshold: float) -> Figure:
    """Scores of good and defective images, and the threshold between them."""
    scores, labels = judged.scores, judged.labels
    figure, axes = _figure((12.6, 3.0))
    bins = np.linspace(min(scores.min(), threshold), max(scores.max(), threshold), 60).tolist()
    axes.hist(scores[~labels], bins=bins, color=GOOD_COLOUR, alpha=0.7, label=f"good ({(~labels).sum()})")
    axes.hist(scores[labels], bins=bins, color=DEFECT_COLOUR, alpha=0.7, label=f"defective ({labels.sum()})")
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3g}")
    axes.set(xlabel="image score", ylabel="images")
    axes.legend(frameon=False, loc="upper right")
    return figure


def roc_figure(judged: JudgedSet, curves: PixelCurves | None) -> Figure:
    """ROC curves of images and pixels; an empty frame where the test set has one class."""
    figure, axes = _figure(CURVE_SIZE)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    if curves is not None:
        axes.plot(curves.false_positive_rate, curves.true_positive_rate, color=FAINT, label="pixels")
    if judged.labels.any() and not judged.labels.all():
        false_rejects, caught, _ = roc_curve(judged.labels, judged.scores)
        axes.plot(false_rejects, caught, color=DEFECT_COLOUR, linewidth=1.8, label="images")
        point = judged.rejected[~judged.labels].mean(), judged.rejected[judged.labels].mean()
        axes.plot(*point, "o", color=INK, markersize=6, label="at the threshold", clip_on=False)
        axes.legend(frameon=False, loc="lower right")
    axes.set(xlabel="share of the good rejected", ylabel="share of the defective caught")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure


def pro_figure(curves: PixelCurves, *, pro: float) -> Figure:
    """The PRO curve up to its limit; the measure is the filled share of the frame."""
    figure, axes = _figure(CURVE_SIZE)
    rate, overlap = curves.false_positive_rate, curves.overlap
    axes.plot(rate, overlap, color=DEFECT_COLOUR, linewidth=1.8)
    axes.fill_between(rate, overlap, color=DEFECT_COLOUR, alpha=0.12, linewidth=0)
    axes.text(0.5, 0.4, f"PRO {pro:.4f}", transform=axes.transAxes, ha="center", color=INK)
    axes.set(xlabel="share of good pixels called defective", ylabel="mean share found of a defect region")
    axes.set(xlim=(0, MAX_FALSE_POSITIVE_RATE), ylim=(0, 1.02))
    return figure


def training_figure(losses: Losses) -> Figure:
    """Losses, and below them the learning rate, over the steps."""
    figure = Figure(figsize=CURVE_SIZE, layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes in (loss, rate):
        _plain(axes)
    loss.plot(losses.step, losses.train_loss, color=GOOD_COLOUR, alpha=0.3, linewidth=0.8)
    loss.plot(losses.step, running_mean(losses.train_loss), color=GOOD_COLOUR, label="training")
    validated = ~np.isnan(losses.validation_loss)
    if validated.any():
        values = losses.validation_loss[validated]
        loss.plot(losses.step[validated], values, color=DEFECT_COLOUR, label="held-out good images")
    loss.legend(frameon=False, loc="upper right")
    loss.set(yscale="log", ylabel="loss")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(ScalarFormatter())
    loss.yaxis.set_minor_formatter(NullFormatter())
    rate.plot(losses.step, losses.learning_rate, color=INK, linewidth=1)
    rate.set(xlabel="step", ylabel="rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return figure


def running_mean(values: NDArray[np.float64], window: int = SMOOTHED_STEPS) -> NDArray[np.float64]:
    """[P]: the mean over `window` values around each, over fewer at the ends."""
    window = min(window, len(values))
    sums, counts = (np.convolve(row, np.ones(window), "same") for row in (values, np.ones(len(values))))
    mean: NDArray[np.float64] = sums / counts
    return mean


def panels(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    *,
    usual: float,
    threshold: float,
    inspected: NDArray[np.bool_] | None = None,
) -> Figure:
    """Image [H, W, 3], mask where there is one, anomaly map [H, W], and the map over the image, side by side.

    A pixel of the `usual` score is black in the map and clear in the overlay; the colours' full scale is one and a half
    times the threshold. Where only a part of the image is `inspected` [H, W], a white line shows its outline.
    """
    titles = ["image", *(["mask"] if mask is not None else []), "anomaly map", "overlay"]
    # The places are known, and to have them found takes twice as long as to draw.
    figure = Figure(figsize=(1.9 * len(titles), 2.1))
    shown = dict(zip(titles, figure.subplots(1, len(titles)), strict=True))
    figure.subplots_adjust(left=0.006, right=0.994, bottom=0.01, top=0.89, wspace=0.02)
    for title, axes in shown.items():
        axes.set_title(title, fontsize=9, color=INK, pad=3)
        axes.set_axis_off()
    shown["image"].imshow(image)
    if mask is not None:
        shown["mask"].imshow(mask, cmap="gray", vmin=0, vmax=1)
    colours: dict[str, Any] = {"cmap": "inferno", "vmin": usual, "vmax": 1.5 * threshold}
    shown["anomaly map"].imshow(anomaly_map, **colours)
    overlay = shown["overlay"]
    overlay.imshow(image)
    height = (anomaly_map - usual) / max(1.5 * threshold - usual, 1e-12)  # 0 usual, 1 full scale
    overlay.imshow(anomaly_map, alpha=np.clip(1.5 * height, 0, 0.7), **colours)
    if anomaly_map.min() < threshold < anomaly_map.max():
        overlay.contour(anomaly_map, levels=[threshold], colors="cyan", linewidths=1)
    if mask is not None and not mask.all():
        overlay.contour(mask, levels=[0.5], colors="lime", linewidths=1)
    if inspected is not None and not inspected.all():
        for axes in (shown["image"], overlay):
            axes.contour(inspected, levels=[0.5], colors="black", linewidths=1.6)
            axes.contour(inspected, levels=[0.5], colors="white", linewidths=1, linestyles="dashed")
    return figure


def data_uri(figure: Figure, *, dpi: int = 130) -> str:
    """A figure as a PNG inside a URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return png_uri(buffer.getvalue())


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, colors=INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=9, color=INK)


def extent_of(shown: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of what is shown of an image [H, W] that was filled beside its picture."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
