"""A real Prometheus watches the real server: it has the verdicts, tells of other light, and answers the dashboards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import tritonclient.grpc as grpcclient

from client import JudgeClient, load_image
from client.core.errors import ClientError
from deploy.server import TritonServer
from deploy.supervision.health import Health, health_endpoint
from export.releases.publish import publish_category
from export.releases.record import Record
from export.releases.verbs.retune import Retuning, retuned
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.benchmarks.dashboards.line import keep_judging, light_that_moves
from tests.benchmarks.dashboards.panels import Span, ask, panels_of, read_dashboards, variables_of
from tests.deploy.conftest import comes_true
from tests.products import (
    MAX_BATCH_SIZE,
    TIMEOUT_S,
    UNCALIBRATED,
    UNCALIBRATED_WEIGHTS,
    Product,
    calibration_file,
    copy_as,
)
from tests.prometheus import PROGRAM, SCRAPE_S, Prometheus, running_prometheus

pytest_plugins = ["tests.serving"]
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(PROGRAM is None, reason="needs prometheus, of Debian's package of that name"),
]

HOUR_S = 12  # what the rules take for an hour; they want 50 parts in it
WITHIN_S = 60  # much more than it takes, on a machine with other work
DRIFT = "AstmfrScoreDrift"
NO_GPU = {"GPU", "GPU memory", "GPU power"}


@dataclass(frozen=True)
class Lamp:
    """A product whose good parts score half a threshold, as many do that were calibrated with enough images."""

    release: Record

    @property
    def name(self) -> str:
        return self.release.category

    @property
    def threshold(self) -> float:
        return self.release.calibration.image_threshold

    @property
    def usual(self) -> float:
        """The median score of the calibration's good images."""
        scores = self.release.manifest.provenance.usual_scores
        assert scores is not None
        return scores.score.median


@dataclass
class Shift:
    """What a Prometheus saw of a line from `start_s`, seconds since 1970, and the alerts that fired in either light."""

    prometheus: Prometheus
    start_s: float = field(default_factory=time.time)
    in_right_light: set[str] = field(default_factory=set)
    in_other_light: set[str] = field(default_factory=set)

    def firing(self) -> set[str]:
        return {labels["alertname"] for labels in self.prometheus.firing()}

    def compared(self, lamp: Lamp) -> bool:
        """Whether the rules know how good parts score, and how they are to."""
        selected = f'{{category="{lamp.name}"}}'
        names = (f"astmfr:release:good_score{of}{selected}" for of in ("1h", "_expected"))
        return all(self.prometheus.query(name) for name in names)

    def value(self, metric: str, lamp: Lamp, **labels: str) -> float:
        """A metric of the live release's verdicts."""
        own = {"category": lamp.name, "release": str(lamp.release.release_id), **labels}
        pairs = ",".join(f'{name}="{value}"' for name, value in own.items())
        (series,) = self.prometheus.query(f"{metric}{{{pairs}}}")
        return series.value


@pytest.fixture(scope="module")
def lamp(server: TritonServer, edge: Product) -> Lamp:
    """Published over the shared teacher, tuned and loaded."""
    name = "lamp"
    build = copy_as(edge.build, edge.build.parent / name)
    platform = Platform(max_batch_size=MAX_BATCH_SIZE)
    publish_category(build, repository=edge.repository, platform=platform, read_graph=read_onnx_file)
    usual = edge.checkpoint.provenance.usual_scores
    assert usual is not None
    tuned = Retuning(threshold=2 * usual.score.median)
    record = retuned(edge.repository, name, tuned, url=None).live
    calibration_file(edge.repository, UNCALIBRATED_WEIGHTS).unlink(
        missing_ok=True
    )  # it was put right meanwhile
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(name, client_timeout=TIMEOUT_S)
    return Lamp(record)


@pytest.fixture(scope="module")
def shift(
    server: TritonServer, edge: Product, lamp: Lamp, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shift]:
    """Good and bad parts, then good ones in another light, in front of a Prometheus whose hours are short."""
    pictures = [(image.anomalous, load_image(image.path)) for image in edge.data.test]
    good = [picture for anomalous, picture in pictures if not anomalous]
    bad = [picture for anomalous, picture in pictures if anomalous]
    health = Health()
    health.mended("server")
    health.beat({"nut_student": "its file is damaged"})
    with (
        health_endpoint(health, "127.0.0.1", 0) as health_url,
        JudgeClient(server.grpc_url, category=lamp.name, timeout_s=TIMEOUT_S) as judge,
        JudgeClient(server.grpc_url, category=UNCALIBRATED, timeout_s=TIMEOUT_S) as uncalibrated,
        running_prometheus(
            tmp_path_factory.mktemp("prometheus"),
            [urlsplit(str(url)).netloc for url in (server.metrics_url, health_url)],
            hour_s=HOUR_S,
        ) as prometheus,
    ):
        seen = Shift(prometheus)
        judge.score(good[0])  # Prometheus sees a counter rise only from what it has seen before
        assert comes_true(lambda: bool(prometheus.query("astmfr_score_bucket")), within_s=WITHIN_S)
        assert keep_judging(judge, good, bad, until=lambda: seen.compared(lamp), within_s=WITHIN_S)
        with pytest.raises(ClientError):
            uncalibrated.score(good[0])  # one that fails
        health.count("model_broken")
        seen.in_right_light = seen.firing()
        other = light_that_moves(judge, good, usual=lamp.usual, threshold=lamp.threshold, by=0.2)
        fires = keep_judging(judge, other, [], until=lambda: DRIFT in seen.firing(), within_s=WITHIN_S)
        assert fires, prometheus.query("astmfr:release:good_score1h")
        seen.in_other_light = seen.firing()
        time.sleep(2 * SCRAPE_S)  # what was judged last is seen too
        yield seen


def test_verdicts_are_series_by_category_and_release(shift: Shift, lamp: Lamp) -> None:
    inspected = shift.value("astmfr_inspected_total", lamp)
    rejected = shift.value("astmfr_rejected_total", lamp)
    assert 0 < rejected < inspected
    assert shift.value("astmfr_score_bucket", lamp, le="+Inf") == inspected
    assert shift.value("astmfr_score_bucket", lamp, le="1") == inspected - rejected
    assert shift.value("astmfr_calibration_score", lamp, quantile="0.5") == pytest.approx(0.5, rel=1e-5)


def test_other_light_fires_the_alert_of_drift_and_right_light_does_not(shift: Shift) -> None:
    assert DRIFT not in shift.in_right_light
    assert DRIFT in shift.in_other_light


@pytest.mark.parametrize("name", ["line", "engineering"])
def test_prometheus_answers_every_expression_of_a_dashboard(shift: Shift, name: str) -> None:
    dashboard = read_dashboards()[name]
    for variable, values in variables_of(dashboard, shift.prometheus):
        assert values, variable
    span = Span(shift.start_s, time.time())
    answers = {
        panel["title"]: ask(panel, shift.prometheus, span, rate_s=4 * SCRAPE_S)
        for panel in panels_of(dashboard)
    }
    with_data = {title for title, given in answers.items() if any(answer.curves for answer in given)}
    assert answers.keys() - with_data == answers.keys() & NO_GPU
