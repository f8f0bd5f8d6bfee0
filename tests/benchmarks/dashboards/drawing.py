"""A dashboard as a picture: panels where Grafana's grid has them, with units and dashed limits."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tests.benchmarks.dashboards.panels import Answer, Span
from tests.prometheus import Series

COLUMNS = 24  # of Grafana's grid
CELL_INCHES = (0.55, 0.36)
MOST_IN_LEGEND = 8
FEW_POINTS = 5  # of which a line alone would not be seen
WHEN = "%H:%M:%S"
COLOURS = 64  # of a picture
OVER_TIME = ("timeseries", "heatmap", "state-timeline")


def draw(dashboard: dict[str, Any], answers: dict[int, list[Answer]], span: Span, path: Path) -> None:
    """Draw a dashboard with the answers to its panels, by their ids, over a time, into a PNG file."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(COLUMNS * CELL_INCHES[0], (rows + 1) * CELL_INCHES[1]), dpi=80)
    figure.text(0.01, 1 - 0.6 / (rows + 1), dashboard["title"], fontsize=13, weight="bold", va="center")
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            height = 1 - (place["y"] + 1.5) / (rows + 1)
            figure.text(0.01, height, panel["title"], fontsize=11, weight="bold", va="center", color="#444")
            continue
        axes = _axes(figure, place, rows)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        given = answers[panel["id"]]
        DRAW[panel["type"]](axes, panel, given)
        if panel["type"] in OVER_TIME and any(answer.curves for answer in given):
            axes.set_xlim(*(datetime.fromtimestamp(at) for at in (span.start_s, span.end_s)))  # type: ignore[arg-type]
    figure.savefig(path)
    plt.close(figure)
    with Image.open(path) as picture:
        few_colours = picture.convert("RGB").quantize(COLOURS)
    few_colours.save(path, optimize=True)


def _axes(figure: Figure, place: dict[str, int], rows: int) -> Axes:
    """Within a panel's cells, with room for its title and for what stands at the axes."""
    left, right, top, bottom = 1.5, 0.4, 1.1, 0.9  # cells
    axes: Axes = figure.add_axes(
        (
            (place["x"] + left) / COLUMNS,
            1 - (1 + place["y"] + place["h"] - bottom) / (rows + 1),
            (place["w"] - left - right) / COLUMNS,
            (place["h"] - top - bottom) / (rows + 1),
        )
    )
    return axes


def _empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "No data", ha="center", va="center", color="grey", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _times(series: Series) -> list[Any]:
    return [datetime.fromtimestamp(at) for at, _ in series.points]


def _clock(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(dates.DateFormatter(WHEN))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=8))  # type: ignore[no-untyped-call]
    axes.tick_params(labelsize=7)


def draw_number(axes: Axes, panel: dict[str, Any], answers: list[Answer]) -> None:
    """A single value."""
    curves = answers[0].curves
    _empty(axes)
    if curves and not math.isnan(curves[0][1].value):
        axes.texts[0].remove()
        text = in_unit(curves[0][1].value, panel["fieldConfig"]["defaults"]["unit"])
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=24, transform=axes.transAxes)


def draw_curves(axes: Axes, panel: dict[str, Any], answers: list[Answer]) -> None:
    """Values over time; what the panel has dashed is dashed and red, as limits are."""
    curves = [curve for answer in answers for curve in answer.curves]
    if not curves:
        _empty(axes)
        return
    for name, series in curves:
        line: dict[str, Any] = {"linestyle": "--", "color": "tab:red"} if _dashed(panel, name) else {}
        marker = "." if len(series.points) < FEW_POINTS else None
        values = [value for _, value in series.points]
        axes.plot(_times(series), values, label=name or None, linewidth=1.2, marker=marker, **line)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.yaxis.set_major_formatter(lambda value, _: in_unit(value, unit))
    every = [value for _, series in curves for _, value in series.points if math.isfinite(value)]
    axes.set_ylim(min(0, *every, 0), 1.1 * max(0, *every, 0) or 1)
    axes.grid(alpha=0.3)
    if any(name for name, _ in curves[:MOST_IN_LEGEND]):
        axes.legend(
            *(part[:MOST_IN_LEGEND] for part in axes.get_legend_handles_labels()), fontsize=6, loc="best"
        )
    _clock(axes)


def _dashed(panel: dict[str, Any], name: str) -> bool:
    return any(
        override["matcher"]["id"] == "byRegexp"
        and re.fullmatch(override["matcher"]["options"], name)
        and any(each["id"] == "custom.lineStyle" for each in override["properties"])
        for override in panel["fieldConfig"]["overrides"]
    )


def draw_heatmap(axes: Axes, panel: dict[str, Any], answers: list[Answer]) -> None:
    """How many values came to lie in each bucket, over time; Prometheus counts all up to a bucket's end."""
    curves = sorted(answers[0].curves, key=lambda curve: float(curve[0].replace("+Inf", "inf")))
    if not curves:
        _empty(axes)
        return
    times = sorted({at for _, series in curves for at, _ in series.points})
    up_to = np.array([[dict(series.points).get(at, 0.0) for at in times] for _, series in curves])
    counts = np.diff(up_to, axis=0, prepend=0).clip(0)
    shown = np.array([datetime.fromtimestamp(at) for at in times])
    axes.pcolormesh(shown, np.arange(len(curves)), counts, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(curves)), [name for name, _ in curves])
    _clock(axes)


def draw_states(axes: Axes, panel: dict[str, Any], answers: list[Answer]) -> None:
    """Green where a series is 1, red where it is not."""
    curves = answers[0].curves
    if not curves:
        _empty(axes)
        return
    for row, (name, series) in enumerate(curves):
        times = _times(series)
        width: Any = times[1] - times[0] if len(times) > 1 else timedelta(seconds=1)
        colours = ["tab:green" if value == 1 else "tab:red" for _, value in series.points]
        axes.barh([row] * len(times), width, left=times, color=colours, height=0.6)
        axes.text(0.06, (row + 0.5) / len(curves), name, fontsize=7, color="white", transform=axes.transAxes)
    axes.set_yticks([])
    axes.set_ylim(-0.5, len(curves) - 0.5)
    axes.xaxis_date()
    _clock(axes)


def draw_table(axes: Axes, panel: dict[str, Any], answers: list[Answer]) -> None:
    """The labels of each series in a row."""
    rows = [series.labels for _, series in answers[0].curves]
    _empty(axes)
    if not rows:
        return
    axes.texts[0].remove()
    columns = sorted({name for labels in rows for name in labels if name not in ("__name__", "alertstate")})
    cells = [[labels.get(name, "") for name in columns] for labels in rows]
    table = axes.table(cells, colLabels=columns, loc="upper center", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(7)


def in_unit(value: float, unit: str) -> str:
    """A value as Grafana writes it in one of the units that the dashboards have."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "bytes":
        power = min(int(math.log2(value) // 10), 4) if value >= 1 else 0
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    if unit in ("s", "µs"):
        seconds = value if unit == "s" else value / 1e6
        return f"{1000 * seconds:.3g} ms" if abs(seconds) < 1 else f"{seconds:.3g} s"
    return f"{value:.4g}" + {"short": "", "reqps": " req/s", "watt": " W"}[unit]


DRAW = {
    "stat": draw_number,
    "timeseries": draw_curves,
    "heatmap": draw_heatmap,
    "table": draw_table,
    "state-timeline": draw_states,
}
