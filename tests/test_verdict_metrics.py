"""The server's own metrics tell what was inspected, rejected, and how near the threshold the scores lie."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest

from client import load_image
from deploy.server import TritonServer
from model_repository.distance_fusion.verdict_metrics import EVERY_S
from tests.deploy.conftest import comes_true
from tests.products import Product

pytest_plugins = ["tests.serving"]
pytestmark = pytest.mark.triton


def metrics_of(server: TritonServer, product: Product) -> dict[str, float]:
    """Values of our own series of one release, by name and bucket."""
    assert server.metrics_url is not None
    with urllib.request.urlopen(server.metrics_url) as response:
        text = response.read().decode()
    own = f'category="{product.name}",release="{product.checkpoint.release_id}"'
    found = {}
    for name, labels, value in re.findall(r"^(astmfr_\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
        if own in labels:
            (bucket,) = re.findall(r'le="(.*?)"', labels) or [""]
            found[f"{name} {bucket}".strip()] = float(value)
    return found


def settled(server: TritonServer, product: Product) -> dict[str, float]:
    """The same once all that was judged before has been counted, which happens a few times a second."""
    while True:
        before = metrics_of(server, product)
        time.sleep(3 * EVERY_S)
        if before == metrics_of(server, product):
            return before


def test_verdicts_are_among_the_metrics(server: TritonServer, edge: Product) -> None:
    before = settled(server, edge)
    images = [load_image(image.path) for image in edge.data.test]
    with edge.connect(server) as judge:
        verdicts = [judge.score(image) for image in images]
        verdicts += judge.score_many(images, batch=2)
        verdicts += [judge.judge(images[0], threshold=0.0)]  # rejected by this request's own threshold alone
    expected = {
        "astmfr_inspected_total": len(verdicts),
        "astmfr_rejected_total": sum(verdict.anomalous for verdict in verdicts),
        "astmfr_score_count": len(verdicts),
        "astmfr_score_bucket +Inf": len(verdicts),
        "astmfr_score_bucket 1": sum(
            verdict.score <= edge.checkpoint.calibration.image_threshold for verdict in verdicts
        ),
    }

    def more() -> dict[str, float]:
        now = metrics_of(server, edge)
        return {name: now.get(name, 0) - before.get(name, 0) for name in expected}

    assert comes_true(lambda: more()["astmfr_score_count"] == len(verdicts), within_s=20)
    assert more() == expected
    assert 0 < expected["astmfr_rejected_total"] < len(verdicts)
