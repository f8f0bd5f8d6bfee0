"""Grafana's dashboards: they can be drawn, and ask for what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.kubernetes.rendering import example, of_kind, render
from tests.deploy.monitoring.expressions import (
    MONITORING,
    as_rules,
    filled,
    known_metrics,
    metrics_of,
    needs_promtool,
)
from tests.deploy.monitoring.test_alerts import promtool

DASHBOARDS = sorted((MONITORING / "dashboards").iterdir())
WIDTH = 24  # of Grafana's grid


def read(path: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(path.read_text())
    return dashboard


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_beside_one_another(path: Path) -> None:
    dashboard = read(path)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_expressions_name_metrics_and_variables_that_there_are(path: Path) -> None:
    dashboard = read(path)
    asked = list(expressions(dashboard))
    assert asked
    for expression in asked:
        assert "$" not in filled(expression)
        assert metrics_of(expression) <= known_metrics(), expression
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    used = {name for name in variables if any(f"${name}" in expression for expression in asked)}
    assert used == variables.keys() - {"datasource"}
    for name in used:
        metric = variables[name]["query"]["query"].removeprefix("label_values(").partition(",")[0]
        assert metric in known_metrics()


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_takes_the_expressions(path: Path, tmp_path: Path) -> None:
    promtool("check", "rules", as_rules(list(expressions(read(path))), tmp_path / "rules.yaml"))


def test_there_is_a_view_for_the_line_and_one_for_engineers() -> None:
    assert {path.stem for path in DASHBOARDS} == {"line", "engineering"}
    assert len({read(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)


def test_the_chart_hands_both_to_grafana() -> None:
    maps = of_kind(render(example(15)), "ConfigMap").values()
    handed = {name: text for each in maps for name, text in each["data"].items()}
    assert handed == {path.name: path.read_text() for path in DASHBOARDS}
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)
