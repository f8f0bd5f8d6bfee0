"""Alert rules: promtool runs their own tests, and they name metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.kubernetes.rendering import CHART, example, of_kind, render
from tests.deploy.monitoring.expressions import (
    MONITORING,
    PROMTOOL,
    as_rules,
    groups,
    known_metrics,
    metrics_of,
    needs_promtool,
    rules,
)
from tests.prometheus import shorten_windows, sooner

TESTS = sorted((MONITORING / "tests").glob("*.yaml"))


def promtool(*arguments: str | Path) -> str:
    """What it says; fails where it finds a fault."""
    done = subprocess.run(
        [str(PROMTOOL), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_alerts_fire_when_they_should_and_are_silent_else() -> None:
    promtool("check", "rules", *sorted((MONITORING / "rules").iterdir()))
    assert "FAILED" not in promtool("test", "rules", *TESTS)


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    fired = {
        case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in rules("alerts.yaml") if "alert" in rule}


def test_an_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in rules("alerts.yaml"):
        if "alert" in rule:
            assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.parametrize("name", ["limits.yaml", "alerts.yaml"])
def test_rules_name_metrics_that_there_are(name: str) -> None:
    for rule in rules(name):
        assert metrics_of(rule["expr"]) <= known_metrics(), rule["expr"]


def test_the_names_in_an_expression_are_found() -> None:
    expression = 'sum by (le) (rate(a_b{c="d"}[5m])) / 1e6 > on (x) group_left () scalar(max(l:m{n=""}))'
    expression += " unless up offset 1d"
    assert metrics_of(expression) == {"a_b", "l:m", "up"}


def test_the_chart_has_the_same_rules_and_limits() -> None:
    (rule,) = of_kind(render(example(15)), "PrometheusRule").values()
    limits, *alerts = rule["spec"]["groups"]
    assert alerts == groups("alerts.yaml")
    own = [each for each in limits["rules"] if "labels" in each]
    assert own == [
        {"record": "astmfr:limit:reject_rate_high", "expr": "vector(0.1)", "labels": {"category": "screw"}}
    ]
    common = {each["record"]: each["expr"] for each in limits["rules"] if "labels" not in each}
    assert common == {each["record"]: each["expr"] for each in rules("limits.yaml")}


@needs_promtool
def test_the_autoscalers_query_is_one(tmp_path: Path) -> None:
    (rule,) = yaml.safe_load((CHART.parent / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "namespace, pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="factory",pod=~"line-a-1|line-a-2"')
    assert "<<" not in query
    assert metrics_of(query) <= known_metrics()
    promtool("check", "rules", as_rules([query], tmp_path / "rules.yaml"))
    # Two steps of a pod: 1 ms and 40 ms; one of the other, which nobody asks.
    series = [
        ("nv_inference_queue_duration_us", "line-a-1", "fusion", "0+100000x10"),
        ("nv_inference_request_success", "line-a-1", "fusion", "0+100x10"),
        ("nv_inference_queue_duration_us", "line-a-1", "teacher", "0+4000000x10"),
        ("nv_inference_request_success", "line-a-1", "teacher", "0+100x10"),
        ("nv_inference_queue_duration_us", "line-a-2", "teacher", "5x10"),
        ("nv_inference_request_success", "line-a-2", "teacher", "5x10"),
    ]
    case = {
        "input_series": [
            {"series": f'{name}{{namespace="factory",pod="{pod}",model="{model}"}}', "values": values}
            for name, pod, model, values in series
        ],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "8m",
                "exp_samples": [
                    {"labels": '{namespace="factory",pod="line-a-1"}', "value": 40},
                    {"labels": '{namespace="factory",pod="line-a-2"}', "value": 0},
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [case | {"interval": "1m"}]}))
    promtool("test", "rules", tmp_path / "test.yaml")


def test_a_copy_with_shorter_hours_is_the_same_but_for_them() -> None:
    """Of which `tests/test_prometheus.py` makes use."""
    expression = "max_over_time(a[1h]) + avg_over_time(b[7d] offset 1d) + rate(c[2m])"
    short = "max_over_time(a[12000ms]) + avg_over_time(b[2016000ms] offset 288000ms) + rate(c[2000ms])"
    assert shorten_windows(expression, 12) == short
    for name in ("limits.yaml", "alerts.yaml"):
        shortened = [
            rule for group in sooner({"groups": groups(name)}, 12)["groups"] for rule in group["rules"]
        ]
        for rule, shorter in zip(rules(name), shortened, strict=True):
            aside = {"expr", "for"}
            assert {k: v for k, v in rule.items() if k not in aside} == {
                k: v for k, v in shorter.items() if k not in aside
            }
            assert not re.search(r"(\[|offset )\d+[smhd]\b", shorter["expr"]), shorter["expr"]
            windows = r"(\[|offset )\w+"
            assert re.sub(windows, "", rule["expr"]) == re.sub(windows, "", shorter["expr"])
