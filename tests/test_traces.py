"""One request is followed by its spans: from the client's own to each step of the ensemble, on the real server.

Both send them over OTLP to a receiver of the protocol's own messages, which stands where a collector would.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from client import JudgeClient
from client.tracing.spans import CALL
from deploy.server import TritonServer, running_server
from deploy.tracing.tracing import SERVER_NAME, Tracing
from model_repository.trace_collector import stated_collector
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from tests.trace_receiver import Receiver, trace_receiver
from train.data.category import CategoryData

pytestmark = pytest.mark.triton

ROOT_SPAN = "InferRequest"  # the server's own


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with trace_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def server(
    tiny_build: Path, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A server that traces what clients trace, and nothing else."""
    work = tmp_path_factory.mktemp("traces")
    repository = copy_backends(work / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    with running_server(
        repository=repository,
        log=work / "log",
        triton_env=ROOT / ".triton",
        tracing=Tracing(stated_collector(receiver.url), rate=0),
    ) as running:
        yield running


@pytest.fixture
def traced(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program with a provider of tracers, whose spans go to the receiver too."""
    provider = TracerProvider(resource=Resource({"service.name": "line"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(stated_collector(receiver.url).url)))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield
    provider.shutdown()


def steps_of(server: TritonServer, ensemble: str) -> set[str]:
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        config = client.get_model_config(ensemble, client_timeout=TIMEOUT_S).config
    return {step.model_name for step in config.ensemble_scheduling.step}


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.usefixtures("traced")
def test_a_request_is_followed_from_the_client_to_each_step(
    server: TritonServer, receiver: Receiver, tiny_data: CategoryData, encoded: bool
) -> None:
    path = tiny_data.test[0].path
    with (
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
        trace.get_tracer("test").start_as_current_span("a part comes") as part,
    ):
        verdict = judge.judge(path.read_bytes() if encoded else path)
    trace_id = part.get_span_context().trace_id.to_bytes(16, "big")
    ensemble = f"{CATEGORY}_encoded" if encoded else CATEGORY
    steps = steps_of(server, ensemble)
    assert len(steps) == (4 if encoded else 3)

    def followed() -> bool:
        names = {span.name for span in receiver.spans if span.trace_id == trace_id}
        return {*steps, ensemble, ROOT_SPAN, CALL, "a part comes"} <= names

    assert comes_true(followed, within_s=10), [(span.name, span.trace_id.hex()) for span in receiver.spans]
    spans = {span.name: span for span in receiver.spans if span.trace_id == trace_id}
    above_steps = [ensemble, ROOT_SPAN, CALL, f"judge {CATEGORY}", "a part comes"]
    for step in steps:
        assert receiver.above(spans[step]) == above_steps, step
        assert spans[step].service == SERVER_NAME
        assert spans[CALL].started_ns < spans[step].started_ns < spans[step].ended_ns < spans[CALL].ended_ns
        computed = [span for span in receiver.named("compute") if span.parent_id == spans[step].span_id]
        assert len(computed) == 1, step
    judged = spans[f"judge {CATEGORY}"]
    assert judged.service == "line"
    assert judged.attributes["astmfr.release_id"] == str(verdict.release_id)
    assert judged.attributes["astmfr.score"] == verdict.score


def test_what_no_client_traces_is_not_traced(
    server: TritonServer, receiver: Receiver, tiny_data: CategoryData, traced: None
) -> None:
    def judge(times: int) -> None:
        with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as client:
            for _ in range(times):
                client.score(tiny_data.test[0].path)

    before = len(receiver.named(ROOT_SPAN))
    with pytest.MonkeyPatch.context() as untraced:
        untraced.setattr(trace, "get_tracer", trace.ProxyTracerProvider().get_tracer)
        judge(5)
    judge(1)
    assert comes_true(lambda: len(receiver.named(ROOT_SPAN)) > before, within_s=10)
    assert len(receiver.named(ROOT_SPAN)) == before + 1
