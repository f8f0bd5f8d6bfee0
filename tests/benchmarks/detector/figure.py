"""Image AUROC by set and method, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from tests.benchmarks.detector.measuring import Measured
from tests.benchmarks.detector.results import LABELS
from train.evaluation.figures import DEFECT_COLOUR, FAINT, GOOD_COLOUR, INK
from train.support.files import replacing

COLOURS = {"edge": GOOD_COLOUR, "padim": DEFECT_COLOUR, "patchcore": "#2b5c8a"}
SIZE, DPI = (8.6, 3.3), 130  # as wide as a README
DISTANCE = 0.2  # between the methods of one set, which are 1 apart


def auroc_figure(results: Sequence[Measured]) -> Figure:
    """A large dot for the mean of a method on a set, small ones for its seeds, a line over their range."""
    known = [result for result in results if result.image_auroc is not None]
    sets = list(dict.fromkeys((result.dataset, result.category) for result in known))
    methods = [method for method in COLOURS if any(result.method == method for result in known)]
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for order, method in enumerate(methods):
        offset = DISTANCE * (order - (len(methods) - 1) / 2)
        colour, label = COLOURS[method], LABELS[method].strip("`")
        for position, where in enumerate(sets):
            of_method = [r for r in known if r.method == method and (r.dataset, r.category) == where]
            values = [result.image_auroc for result in of_method if result.image_auroc is not None]
            if not values:
                continue
            x = position + offset
            axes.plot([x, x], [min(values), max(values)], color=colour, linewidth=1.6, alpha=0.5)
            axes.plot([x] * len(values), values, "o", color=colour, markersize=3.2, alpha=0.5)
            axes.plot(x, sum(values) / len(values), "o", color=colour, markersize=7.5)
        axes.plot([], [], "o", color=colour, markersize=7.5, label=label)
    for boundary in range(1, len(sets)):
        axes.axvline(boundary - 0.5, color=FAINT, linewidth=0.6, alpha=0.5)
    axes.set(ylabel="image AUROC", xlim=(-0.5, max(1, len(sets)) - 0.5))
    axes.set_xticks(range(len(sets)), [f"{category}\n{dataset}" for dataset, category in sets])
    axes.yaxis.set_major_formatter(FormatStrFormatter("%.2f"))
    axes.yaxis.label.set(fontsize=11, color=INK)
    axes.tick_params(labelsize=10, colors=INK)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, fontsize=10
    )
    return figure


def write_figure(path: Path, results: Sequence[Measured]) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with replacing(path) as temporary:
        auroc_figure(results).savefig(temporary, format="png", dpi=DPI)
