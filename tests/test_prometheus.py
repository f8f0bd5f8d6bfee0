"""A real Prometheus watches the real server: it has the verdicts, tells of other light, and answers the dashboards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from client import JudgeClient, load_image
from client.core.errors import ClientError
from deploy.server import TritonServer
from deploy.supervision.health import Health, health_endpoint
from tests.benchmarks.dashboards.line import keep_judging, light_that_moves
from tests.benchmarks.dashboards.panels import Span, ask, panels_of, read_dashboards, variables_of
from tests.deploy.conftest import comes_true
from tests.products import TIMEOUT_S, UNCALIBRATED, Product
from tests.prometheus import PROGRAM, SCRAPE_S, Prometheus, running_prometheus

pytest_plugins = ["tests.serving"]
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(PROGRAM is None, reason="needs prometheus, of Debian's package of that name"),
]

HOUR_S = 12  # what the rules take for an hour
GOOD_PARTS = 50  # an hour, without which the rules say nothing of scores
NO_GPU = {"GPU", "GPU memory", "GPU power"}


@dataclass(frozen=True)
class Shift:
    """What a Prometheus saw of a line.

    Attributes:
        at_first: the alerts that fired while the light was right.
        at_last: those that fired when it had changed.
        start_s: when it began, seconds since 1970.
    """

    prometheus: Prometheus
    at_first: set[str]
    at_last: set[str]
    start_s: float

    def verdicts(self, metric: str, product: Product, **labels: str) -> float:
        """A metric of the live release's verdicts."""
        own = {"category": product.name, "release": str(product.checkpoint.release_id), **labels}
        pairs = ",".join(f'{name}="{value}"' for name, value in own.items())
        (series,) = self.prometheus.query(f"{metric}{{{pairs}}}")
        return series.value


@pytest.fixture(scope="module")
def shift(server: TritonServer, edge: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shift]:
    """Good and bad parts, then good ones in another light, in front of a Prometheus whose hours are short."""
    health = Health()
    health.mended("server")
    health.beat({"nut_student": "its file is damaged"})
    folder = tmp_path_factory.mktemp("prometheus")
    start_s = time.time()
    with (
        health_endpoint(health, "127.0.0.1", 0) as url,
        edge.connect(server) as judge,
    ):
        assert url is not None
        # Prometheus sees a counter rise only from what it has seen before.
        images = {image.path: load_image(image.path) for image in edge.data.test}
        good = [images[image.path] for image in edge.data.test if not image.anomalous]
        bad = [images[image.path] for image in edge.data.test if image.anomalous]
        judge.score(good[0])
        targets = [each.removeprefix("http://").partition("/")[0] for each in (server.metrics_url, url)]
        with running_prometheus(folder, targets, hour_s=HOUR_S) as prometheus:

            def compared() -> bool:
                return all(prometheus.query(f"astmfr:release:good_score{of}") for of in ("1h", "_expected"))

            assert comes_true(lambda: bool(prometheus.query("astmfr_inspected_total")), within_s=20)
            assert keep_judging(judge, good, bad, until=compared, within_s=60)
            with (
                JudgeClient(server.grpc_url, category=UNCALIBRATED, timeout_s=TIMEOUT_S) as other,
                pytest.raises(ClientError),  # counted among those that fail
            ):
                other.score(good[0])
            health.count("model_broken")
            at_first = names(prometheus)
            usual = edge.checkpoint.provenance.usual_scores
            assert usual is not None
            threshold = edge.checkpoint.calibration.image_threshold
            other_light = light_that_moves(judge, good, usual=usual.score.median, threshold=threshold, by=0.2)
            fires = "AstmfrScoreDrift"
            fired = keep_judging(
                judge, other_light, [], until=lambda: fires in names(prometheus), within_s=60
            )
            assert fired, prometheus.query("astmfr:release:good_score1h")
            time.sleep(2 * SCRAPE_S)
            yield Shift(prometheus, at_first, names(prometheus), start_s)


def names(prometheus: Prometheus) -> set[str]:
    return {labels["alertname"] for labels in prometheus.firing()}


def test_verdicts_are_series_by_category_and_release(shift: Shift, edge: Product) -> None:
    inspected = shift.verdicts("astmfr_inspected_total", edge)
    rejected = shift.verdicts("astmfr_rejected_total", edge)
    assert 0 < rejected < inspected
    assert shift.verdicts("astmfr_score_bucket", edge, le="+Inf") == inspected
    assert shift.verdicts("astmfr_score_bucket", edge, le="1") == inspected - rejected
    usual = edge.checkpoint.provenance.usual_scores
    assert usual is not None
    threshold = edge.checkpoint.calibration.image_threshold
    median = shift.verdicts("astmfr_calibration_score", edge, quantile="0.5")
    assert median == pytest.approx(usual.score.median / threshold, rel=1e-5)


def test_light_that_changes_fires_the_alert_of_drift_and_right_light_does_not(shift: Shift) -> None:
    assert "AstmfrScoreDrift" not in shift.at_first
    assert "AstmfrScoreDrift" in shift.at_last


@pytest.mark.parametrize("name", ["line", "engineering"])
def test_every_panel_of_a_dashboard_has_its_data(shift: Shift, name: str) -> None:
    dashboard = read_dashboards()[name]
    for variable, values in variables_of(dashboard, shift.prometheus):
        assert values, variable
    span = Span(shift.start_s, time.time())
    empty = {
        panel["title"]: answer.expression
        for panel in panels_of(dashboard)
        for answer in ask(panel, shift.prometheus, span, rate_s=4 * SCRAPE_S)
        if not any(series.points for _, series in answer.curves)
    }
    assert empty.keys() <= NO_GPU, empty
