"""What rules and dashboards take from tritonserver is what a real one tells."""

from __future__ import annotations

import re
import urllib.request

import pytest

from client import load_image
from deploy.server import TritonServer
from tests.deploy.monitoring.expressions import TRITON
from tests.products import Product

pytest_plugins = ["tests.serving"]
pytestmark = pytest.mark.triton


def test_the_server_has_the_metrics_and_labels(server: TritonServer, edge: Product) -> None:
    with edge.connect(server) as judge:
        judge.score(load_image(edge.data.test[0].path))
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) >= TRITON
    assert re.search(
        r'^nv_inference_request_failure\{model="\w+",reason="BACKEND",version="\d+"\}', text, re.MULTILINE
    )
    assert re.search(
        rf'^nv_inference_request_success\{{model="{edge.name}",version="1"\}} [1-9]', text, re.MULTILINE
    )
