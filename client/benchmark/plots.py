"""A result as pictures: latency against throughput, where a request's time goes, how cost grows with the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.benchmark.measured import Measured
from client.benchmark.result import BenchResult
from client.core.errors import BenchmarkError
from client.files import replace_file
from model_repository.image_size import size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (8.0, 5.0)
DPI = 130
PARTS = ("queue", "copy in", "compute", "copy out (overlaps)")  # of a step's times
PART_COLOURS = ("#c44e52", "#8172b2", "#4c72b0", "#937860")
REST_COLOUR = "#bbbbbb"


def draw_all(result: BenchResult, folder: Path) -> list[Path]:
    """Draw what was measured into a folder, one PNG a plot.

    Returns:
        The files: request_time.png, and with sweeps latency_throughput.png and batch.png.

    Raises:
        BenchmarkError: matplotlib is missing.
    """
    plots = (
        ("request_time.png", draw_request_time, result.ensemble.steps),
        ("latency_throughput.png", draw_latency_throughput, result.concurrency_sweep),
        ("batch.png", draw_batch, result.batch_sweep),
    )
    return [_draw(folder / name, draw, result) for name, draw, measured in plots if measured]


def draw_latency_throughput(axes: Axes, result: BenchResult) -> None:
    """Median and, where there is one, p90 against images a second; one point for each number of requests in flight."""
    points = result.concurrency_sweep
    _line(axes, [(point, point.p50_ms) for point in points], "ensemble, p50", "o-")
    _line(axes, [(point, point.p90_ms) for point in points if point.p90_ms], "ensemble, p90", "o:")
    _line(axes, [(point, point.p50_ms) for point in result.chain_batch_sweep], "bare chain, p50", "s--")
    for point in points:
        _note(axes, point, f"{point.concurrency} in flight")
    for point in result.chain_batch_sweep:
        _note(axes, point, f"batch of {point.batch}")
    axes.set_xlabel("images a second")
    axes.set_ylabel("latency of a request, ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_request_time(axes: Axes, result: BenchResult) -> None:
    """Mean time of a request with one in flight: the parts of every step, then what is left for gRPC and the client.

    A step's copy out overlaps with the next step (`StepTimes.output_ms`); they are drawn one after the other.
    """
    steps = result.ensemble.steps
    labels = [*(step.model for step in steps), "gRPC, client"]
    start = 0.0
    for row, step in enumerate(steps):
        for label, colour, width in zip(PARTS, PART_COLOURS, step.times_ms, strict=True):
            axes.barh(row, width, left=start, color=colour, label=label if row == 0 else None)
            start += width
    mean_ms = 1000 / result.ensemble.throughput
    axes.barh(len(steps), max(mean_ms - start, 0), left=start, color=REST_COLOUR)
    if result.bare_chain is not None:
        axes.axvline(result.bare_chain.p50_ms, color="black", linestyle="--", label="bare chain, p50")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("ms since the request was sent, one step after the other")
    axes.legend(loc="lower left")


def draw_batch(axes: Axes, result: BenchResult) -> None:
    """Latency of a request against the images in it, with a fitted line each."""
    for name, points, marker in (
        ("ensemble", result.batch_sweep, "o"),
        ("bare chain", result.chain_batch_sweep, "s"),
    ):
        if points:
            draw_growth(axes, [(point.batch, point.p50_ms) for point in points], name=name, marker=marker)
    axes.set_xlabel("images in a request")
    axes.set_ylabel("p50 of a request, ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_growth(
    axes: Axes, points: Sequence[tuple[float, float]], *, name: str, marker: str, unit: str = "ms"
) -> None:
    """Points and, where there are two or more, their least-squares line with its equation in the legend."""
    xs, ys = (np.array(values, float) for values in zip(*points, strict=True))
    label = name
    if len(points) > 1:
        slope, offset = fit_line(points)
        label = f"{name}: {offset:.3g} {unit} + {slope:.3g} {unit} each"
        ends = np.array([0.0, xs.max()])
        axes.plot(ends, offset + slope * ends, color="grey", linewidth=1)
    axes.plot(xs, ys, marker, label=label)


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and offset of the least-squares line through (x, y) points, two or more."""
    xs, ys = zip(*points, strict=True)
    slope, offset = np.polyfit(xs, ys, 1)
    return float(slope), float(offset)


def _line(axes: Axes, points: Sequence[tuple[Measured, float]], label: str, style: str) -> None:
    """Latencies against images a second; nothing where there are none."""
    if points:
        axes.plot(
            [point.throughput for point, _ in points], [value for _, value in points], style, label=label
        )


def _note(axes: Axes, point: Measured, text: str) -> None:
    at = (point.throughput, point.p50_ms)
    axes.annotate(text, at, textcoords="offset points", xytext=(6, -4), fontsize=8)


def _draw(path: Path, draw: Callable[[Axes, BenchResult], None], result: BenchResult) -> Path:
    try:
        from matplotlib.figure import Figure  # no pyplot: no window, nothing global
    except ImportError:
        raise BenchmarkError("Plots need matplotlib; install it with `pip install astmfr[bench]`.") from None
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    draw(axes, result)
    header = result.header
    axes.set_title(
        f"{header.category}, {header.precision}, {size_text(header.image_size)} px\n{header.machine}",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path
