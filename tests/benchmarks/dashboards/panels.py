"""The panels of the dashboards, and what Prometheus answers to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.prometheus import MONITORING, Prometheus, Series

POINTS = 120  # of a curve


@dataclass(frozen=True)
class Span:
    """What is shown: from one time to another, seconds since 1970."""

    start_s: float
    end_s: float

    @property
    def step_s(self) -> float:
        """Between two points of a curve."""
        return max((self.end_s - self.start_s) / POINTS, 0.5)


@dataclass(frozen=True)
class Answer:
    """What one expression of a panel comes to.

    Attributes:
        expression: as it was asked.
        curves: each with what the legend calls it.
    """

    expression: str
    curves: list[tuple[str, Series]]


def read_dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards by the names of their files."""
    paths = sorted((MONITORING / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something; rows are headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def filled_in(expression: str, *, rate_s: float) -> str:
    """An expression with all categories, steps and servers chosen, and rates over so many seconds."""
    expression = re.sub(r"\$__(?:rate_)?interval", f"{1000 * rate_s:.0f}ms", expression)
    return re.sub(r"\$(category|model|instance)\b", ".*", expression)


def variables_of(dashboard: dict[str, Any], prometheus: Prometheus) -> Iterator[tuple[str, set[str]]]:
    """Each variable that Grafana asks Prometheus about, and the values that it may take."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield variable["name"], {series.labels[label] for series in prometheus.query(metric)}


def ask(panel: dict[str, Any], prometheus: Prometheus, span: Span, *, rate_s: float) -> list[Answer]:
    """What Prometheus answers to a panel: now for numbers and tables, else over the span."""
    answers = []
    for target in panel["targets"]:
        expression = filled_in(target["expr"], rate_s=rate_s)
        if panel["type"] in ("stat", "table"):
            found = prometheus.query(expression)
        else:
            found = prometheus.query_range(expression, span.start_s, span.end_s, span.step_s)
        curves = [(legend_of(series, target.get("legendFormat", "")), series) for series in found]
        answers.append(Answer(expression, curves))
    return answers


def legend_of(series: Series, legend: str) -> str:
    """`{{label}}` is what the series has there."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), legend).strip()
