"""What rules and dashboards take from tritonserver, the fusion's verdicts among it, is what a real one tells."""

from __future__ import annotations

import re
import urllib.request

import pytest

from client import load_image
from deploy.server import TritonServer
from tests.deploy.conftest import comes_true
from tests.deploy.monitoring.expressions import TRITON
from tests.products import Product

pytest_plugins = ["tests.serving"]
pytestmark = pytest.mark.triton

FUSION_LABELS = {
    "astmfr_inspected_total": {"category", "release"},
    "astmfr_rejected_total": {"category", "release"},
    "astmfr_score_bucket": {"category", "release", "le"},
    "astmfr_calibration_score": {"category", "release", "quantile"},
}


def read_series(server: TritonServer) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The labels and the value of each metric's series."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        found.setdefault(name, []).append((dict(re.findall(r'(\w+)="(.*?)"', labels)), float(value)))
    return found


def read_labels(server: TritonServer) -> dict[str, list[dict[str, str]]]:
    """The labels of each metric's series."""
    return {name: [labels for labels, _ in series] for name, series in read_series(server).items()}


def test_the_server_has_the_metrics_and_labels(server: TritonServer, edge: Product) -> None:
    with edge.connect(server) as judge:
        judge.score(load_image(edge.data.test[0].path))
    # The fusion hands on its verdicts a moment later.
    assert comes_true(lambda: "astmfr_score_bucket" in read_labels(server), within_s=20)
    found = read_labels(server)
    assert found.keys() >= TRITON
    assert {"model": edge.name, "version": "1", "reason": "BACKEND"} in found["nv_inference_request_failure"]
    assert {"model": edge.name, "version": "1"} in found["nv_inference_request_success"]
    for name, labels in FUSION_LABELS.items():
        assert any(each["category"] == edge.name for each in found[name])
        assert all(each.keys() == labels for each in found[name])
    # As `alerts.yaml` writes the threshold and the buckets below it.
    buckets = {each["le"] for each in found["astmfr_score_bucket"]}
    assert len([le for le in buckets if re.fullmatch(r"1(\.0)?", le)]) == 1
    assert len([le for le in buckets if re.fullmatch(r"0\.[0-9]+", le)]) >= 5


def test_the_server_tells_what_the_calibrations_images_scored(server: TritonServer, edge: Product) -> None:
    with edge.connect(server) as judge:
        judge.score(load_image(edge.data.test[0].path))
    assert comes_true(lambda: "astmfr_calibration_score" in read_labels(server), within_s=20)
    found = {
        labels["quantile"]: value
        for labels, value in read_series(server)["astmfr_calibration_score"]
        if (labels["category"], labels["release"]) == (edge.name, str(edge.checkpoint.release_id))
    }
    usual = edge.checkpoint.provenance.usual_scores
    assert usual is not None
    threshold = edge.checkpoint.calibration.image_threshold
    assert found == pytest.approx(
        {
            "0": usual.score.least / threshold,
            "0.05": usual.score.low / threshold,
            "0.5": usual.score.median / threshold,
            "0.95": usual.score.high / threshold,
            "1": usual.score.most / threshold,
        },
        rel=1e-5,
    )
