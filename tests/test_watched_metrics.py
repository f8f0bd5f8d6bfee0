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


def test_the_server_has_the_metrics_and_labels(server: TritonServer, edge: Product) -> None:
    with edge.connect(server) as judge:
        judge.score(load_image(edge.data.test[0].path))
    own = rf'category="{edge.name}",(?:le="1",)?release="\d+"'  # the labels that the expressions group by

    def read() -> str:
        with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
            text: str = response.read().decode()
        return text

    # The fusion hands on its verdicts a moment later.
    assert comes_true(
        lambda: re.search(rf"^astmfr_score_bucket\{{{own}\}} ", read(), re.MULTILINE) is not None
    )
    text = read()
    for name in ("astmfr_inspected_total", "astmfr_rejected_total"):
        assert re.search(rf"^{name}\{{{own}\}} \d", text, re.MULTILINE), name
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) >= TRITON
    assert re.search(
        r'^nv_inference_request_failure\{model="\w+",reason="BACKEND",version="\d+"\}', text, re.MULTILINE
    )
    assert re.search(
        rf'^nv_inference_request_success\{{model="{edge.name}",version="1"\}} [1-9]', text, re.MULTILINE
    )
