"""One request is followed by its spans: from the client's own to each step of the ensemble, on the real server.

Both send them over OTLP to a receiver of the protocol's own messages, which stands where a collector would.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from client import JudgeClient, Verdict
from client.tracing.spans import CALL
from deploy.server import TritonServer, running_server
from deploy.tracing.tracing import SERVER_NAME, Tracing
from model_repository.trace_collector import stated_collector
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from tests.trace_receiver import Received, Receiver, trace_receiver
from train.data.category import CategoryData

pytestmark = pytest.mark.triton

ROOT_SPAN = "InferRequest"  # the server's own
TRIES = 5
Spans = dict[str, Received]


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


def of_trace(receiver: Receiver, trace_id: bytes) -> Spans:
    return {span.name: span for span in receiver.spans if span.trace_id == trace_id}


def are_there(wanted: set[str], receiver: Receiver, trace_id: bytes) -> bool:
    return wanted <= of_trace(receiver, trace_id).keys()


def follow(server: TritonServer, receiver: Receiver, image: Any, wanted: set[str]) -> tuple[Spans, Verdict]:
    """The spans of one request by name, and its verdict, once all that are wanted are there.

    Server 2.51 may keep the spans of the last request to itself, so that another one is asked then.
    """
    for _ in range(TRIES):
        with (
            JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
            trace.get_tracer("test").start_as_current_span("a part comes") as part,
        ):
            verdict = judge.judge(image)
        trace_id = part.get_span_context().trace_id.to_bytes(16, "big")
        if comes_true(partial(are_there, wanted, receiver, trace_id), within_s=4):
            return of_trace(receiver, trace_id), verdict
    raise AssertionError(f"{wanted} did not come, but {[span.name for span in receiver.spans]}")


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.usefixtures("traced")
def test_a_request_is_followed_from_the_client_to_each_step(
    server: TritonServer, receiver: Receiver, tiny_data: CategoryData, encoded: bool
) -> None:
    path = tiny_data.test[0].path
    ensemble = f"{CATEGORY}_encoded" if encoded else CATEGORY
    steps = steps_of(server, ensemble)
    assert len(steps) == (4 if encoded else 3)
    wanted = {*steps, ensemble, ROOT_SPAN, CALL, "a part comes"}
    spans, verdict = follow(server, receiver, path.read_bytes() if encoded else path, wanted)
    above_steps = [ensemble, ROOT_SPAN, CALL, f"judge {CATEGORY}", "a part comes"]
    for step in steps:
        assert receiver.above(spans[step]) == above_steps, step
        assert spans[step].service == SERVER_NAME
        # the server may end a step's span after the answer was sent and has come
        assert spans[CALL].started_ns < spans[step].started_ns < spans[CALL].ended_ns
        assert spans[step].started_ns < spans[step].ended_ns
        computed = [span for span in receiver.named("compute") if span.parent_id == spans[step].span_id]
        assert len(computed) == 1, step
    judged = spans[f"judge {CATEGORY}"]
    assert judged.service == "line"
    assert judged.attributes["astmfr.release_id"] == str(verdict.release_id)
    assert judged.attributes["astmfr.score"] == verdict.score


@pytest.mark.usefixtures("traced")
def test_what_no_client_traces_is_not_traced(
    server: TritonServer, receiver: Receiver, tiny_data: CategoryData
) -> None:
    path = tiny_data.test[0].path
    with (
        pytest.MonkeyPatch.context() as untraced,
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
    ):
        untraced.setattr(trace, "get_tracer", trace.ProxyTracerProvider().get_tracer)
        for _ in range(5):
            judge.score(path)
    follow(server, receiver, path, {ROOT_SPAN})  # spans come in the order of their requests
    assert all(receiver.above(span)[:2] == [CALL, f"judge {CATEGORY}"] for span in receiver.named(ROOT_SPAN))
