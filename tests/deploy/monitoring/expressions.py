"""The metrics that PromQL expressions name, and those that there are."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.supervision.health import Health
from tests.products import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")

# Of the embedded tritonserver 2.51; `test_real_metrics` asks it.
TRITON = {
    "nv_cpu_memory_total_bytes",
    "nv_cpu_memory_used_bytes",
    "nv_cpu_utilization",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "nv_inference_queue_duration_us",
    "nv_inference_request_duration_us",
    "nv_inference_request_failure",
    "nv_inference_request_success",
    "nv_pinned_memory_pool_total_bytes",
    "nv_pinned_memory_pool_used_bytes",
}
# With a GPU alone, by Triton's documentation.
TRITON_GPU = {
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
}
# The fusion's; `test_watched_metrics` asks it.
FUSION = {
    "astmfr_inspected_total",
    "astmfr_rejected_total",
    "astmfr_score_bucket",
    "astmfr_calibration_score",
}
PROMETHEUS = {"up", "ALERTS", "kube_pod_container_status_restarts_total"}  # the last is kube-state-metrics'
WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "on",
    "without",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "inf",
}


@functools.cache
def groups(name: str) -> list[dict[str, Any]]:
    """The groups of a file of rules."""
    found: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules" / name).read_text())["groups"]
    return found


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in groups(name) for rule in group["rules"]]


def known_metrics() -> set[str]:
    """All that an expression may name."""
    supervisor = set(re.findall(r"^# TYPE (\w+)", Health().metrics(), re.MULTILINE))
    recorded = {
        rule["record"] for name in ("limits.yaml", "alerts.yaml") for rule in rules(name) if "record" in rule
    }
    return TRITON | TRITON_GPU | FUSION | PROMETHEUS | supervisor | recorded


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    names = re.findall(r"[A-Za-z_:][\w:]*(?!\s*\(|[\w:])", bare)
    return {name for name in names if name not in WORDS and not re.fullmatch(r"e\d+", name)}


def as_rules(expressions: list[str], path: Path) -> Path:
    """A file of rules, one an expression, with Grafana's variables as it fills them in."""
    records = [
        {"record": f"expression{number}", "expr": filled(expression)}
        for number, expression in enumerate(expressions)
    ]
    path.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": records}]}))
    return path


def filled(expression: str) -> str:
    expression = re.sub(r"\$__(?:rate_)?interval", "5m", expression)
    return re.sub(r"\$(category|model|instance)\b", ".*", expression)
