"""Spans of a question to a scripted server: one an image and one a call, from both shells alike, and none unasked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from client import RefusedImage, ServerError, load_image
from client.tracing.spans import CALL
from tests.client.judging.scripted_server import RELEASE, Script, grey, png, scripted_server
from tests.client.judging.test_shells import SHELLS, results
from tests.client.samples import save_image

UNTRACED = """
import sys
from client import JudgeClient
import numpy as np
with JudgeClient(sys.argv[1], category="pill", timeout_s=20) as judge:
    judge.judge(np.zeros((8, 8), np.uint8))
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a program's own provider of tracers takes."""
    return provide(monkeypatch, TracerProvider(shutdown_on_exit=False))


def provide(monkeypatch: pytest.MonkeyPatch, provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


class Headers(grpc.ServerInterceptor):  # type: ignore[misc]
    """What came along with each inference."""

    def __init__(self) -> None:
        self.traceparents: list[str | None] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        if details.method.endswith("ModelInfer"):
            self.traceparents.append(dict(details.invocation_metadata).get("traceparent"))
        return continuation(details)


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> Headers:
    interceptor, server = Headers(), grpc.server
    monkeypatch.setattr(grpc, "server", lambda pool: server(pool, interceptors=[interceptor]))
    return interceptor


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


@pytest.mark.parametrize("shell", SHELLS)
def test_an_image_has_a_span_and_its_call_one_below(
    spans: InMemorySpanExporter, headers: Headers, shell: str, tmp_path: Path
) -> None:
    path = save_image(tmp_path / "a part.png")
    with scripted_server(Script()) as url:
        (verdict,) = results(shell, url, "judge", [path])
    (image,), (call,) = named(spans, "judge pill"), named(spans, CALL)
    assert dict(image.attributes or {}) == {
        "astmfr.category": "pill",
        "astmfr.image": str(path),
        "astmfr.release_id": str(RELEASE),
        "astmfr.score": verdict.score,
        "astmfr.label": "anomalous" if verdict.anomalous else "good",
    }
    assert parent(image) is None
    assert parent(call) == ids(image)[1]
    (header,) = headers.traceparents
    assert re.fullmatch(
        f"00-{ids(call)[0]:032x}-{ids(call)[1]:016x}-0[13]", str(header)
    )  # 2: its id is random
    assert call.attributes is not None
    assert f"{call.attributes['server.address']}:{call.attributes['server.port']}" == url
    assert image.start_time <= call.start_time <= call.end_time <= image.end_time  # type: ignore[operator]


@pytest.mark.parametrize("shell", SHELLS)
def test_they_are_below_the_span_of_who_asks(spans: InMemorySpanExporter, shell: str) -> None:
    with (
        scripted_server(Script()) as url,
        trace.get_tracer("test").start_as_current_span("a part comes") as above,
    ):
        results(shell, url, "judge", [grey(1)])
        results(shell, url, "score_many", [grey(1), grey(2)])
    asked = named(spans, "judge pill")
    assert [parent(span) for span in asked] == [above.get_span_context().span_id] * 3


@pytest.mark.parametrize("shell", SHELLS)
def test_images_that_go_together_have_a_span_each(spans: InMemorySpanExporter, shell: str) -> None:
    with scripted_server(Script()) as url:
        scores = [result.score for result in results(shell, url, "score_many", [grey(1), grey(200)], batch=2)]
    (request,), (call,), images = named(spans, "judge pill"), named(spans, CALL), named(spans, "image")
    assert (request.attributes or {})["astmfr.images"] == 2
    assert [parent(span) for span in (call, *images)] == [ids(request)[1]] * 3
    assert [(span.attributes or {})["astmfr.score"] for span in images] == scores
    assert [(span.attributes or {})["astmfr.label"] for span in images] == ["good", "anomalous"]


def test_a_call_that_is_made_again_has_another_span(spans: InMemorySpanExporter, headers: Headers) -> None:
    def refuse(number: int) -> tuple[grpc.StatusCode, str] | None:
        return (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size") if number == 1 else None

    with scripted_server(Script(refuse=refuse)) as url:
        results("JudgeClient", url, "score", [grey(1)])
    (image,), calls = named(spans, "judge pill"), named(spans, CALL)
    assert [call.status.status_code for call in calls] == [StatusCode.ERROR, StatusCode.UNSET]
    assert "Exceeds maximum queue size" in str(calls[0].status.description)
    assert image.status.status_code is StatusCode.UNSET
    assert len(set(headers.traceparents)) == 2


def test_an_image_without_a_verdict_says_why(spans: InMemorySpanExporter) -> None:
    with scripted_server(Script()) as url, pytest.raises(RefusedImage) as raised:
        results("JudgeClient", url, "judge", [b"no image"])
    (image,) = named(spans, "judge pill")
    assert (image.status.status_code, image.status.description) == (StatusCode.ERROR, raised.value.message)
    assert "astmfr.label" not in (image.attributes or {})


def test_an_answer_that_is_not_waited_for_is_no_verdict(spans: InMemorySpanExporter) -> None:
    with scripted_server(Script(delay_s=1)) as url, pytest.raises(ServerError):
        results("JudgeClient", url, "judge", [grey(1)], timeout_s=0.3)
    for span in (*named(spans, "judge pill"), *named(spans, CALL)):
        assert span.status.status_code is StatusCode.ERROR


def test_what_is_not_sampled_is_not_traced_on_the_server(
    monkeypatch: pytest.MonkeyPatch, headers: Headers
) -> None:
    exporter = provide(monkeypatch, TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    with scripted_server(Script()) as url:
        results("JudgeClient", url, "judge", [grey(1)])
    assert headers.traceparents == [None]
    assert exporter.get_finished_spans() == ()


def test_who_does_not_trace_imports_nothing_and_sends_nothing(headers: Headers) -> None:
    with scripted_server(Script()) as url:
        done = subprocess.run(
            [sys.executable, "-c", UNTRACED, url], capture_output=True, text=True, check=True, timeout=60
        )
        results("JudgeClient", url, "judge", [grey(1)])  # here the library is loaded, without a provider
    assert done.stdout.strip() == "[]"
    assert headers.traceparents == [None, None]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_picture_that_predict_has_read_knows_its_file(tmp_path: Path, encoded: bool) -> None:
    from client.core.inputs import prepare
    from client.predictions.asking import _content

    path = save_image(tmp_path / "a.png")
    image = _content(path) if encoded else load_image(path)
    assert prepare(image).name == str(path)
    assert prepare(png(1)).name == ""
