"""The spans of a question: one an image, and one a call, whose context the server's own spans continue.

    judge pill                 one request, and its image where it is one alone; below the span of who asks, if any
    |- image, image, ...       where several images go together
    `- ModelInfer              one call; asked again, another one
       `- InferRequest         the server's, below it the ensemble and each of its steps

They are spans only where the program has OpenTelemetry loaded, and a provider of tracers that records. Steps are taken
in several threads, so that nothing here is anybody's current span.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.core.errors import ClientError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from client.core.answers import Answer

LIBRARY = "opentelemetry.trace"
IMAGE, CATEGORY, RELEASE = "astmfr.image", "astmfr.category", "astmfr.release_id"
SCORE, LABEL, IMAGES = "astmfr.score", "astmfr.label", "astmfr.images"
LABELS = ("good", "anomalous")
CALL = "inference.GRPCInferenceService/ModelInfer"
RPC = {"rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer"}
Headers = tuple[tuple[str, str], ...]


@dataclass
class Call:
    """A call that may have a span.

    Attributes:
        headers: that go along with it, so that the server's spans are below its own.
        ended_ns: when its answer came, of `time.time_ns`; None where none did.
    """

    headers: Headers = ()
    ended_ns: int | None = None

    def answered(self, arrived_s: float) -> None:
        """The answer came then, of `time.perf_counter`; who waits for it may look later."""
        self.ended_ns = time.time_ns() - round(1e9 * (time.perf_counter() - arrived_s))


class Spans:
    """The spans of one request, or none of them."""

    def __init__(self, tracer: Tracer | None, request: Span | None, images: Sequence[Span]) -> None:
        self._tracer, self._request, self._images = tracer, request, images

    @contextmanager
    def call(self, url: str) -> Iterator[Call]:
        """The span of a call to `host:port`, for the length of a `with` block."""
        if self._tracer is None or self._request is None:
            yield Call()
            return
        from opentelemetry.trace import SpanKind, set_span_in_context

        host, _, port = url.rpartition(":")
        server: dict[str, str | int] = {"server.address": host.strip("[]"), "server.port": int(port)}
        above = set_span_in_context(self._request)
        span = self._tracer.start_span(CALL, above, SpanKind.CLIENT, {**RPC, **server})
        call = Call(_headers(span))
        try:
            yield call
        except BaseException as error:
            _fail([span], error)
            raise
        finally:
            span.end(call.ended_ns)

    def judged(self, answer: Answer) -> None:
        """Say what became of each image."""
        if not self._images:
            return
        for span, score in zip(self._images, answer.scores(), strict=True):
            # As text: whoever shows 63 bits as a float shows another id.
            span.set_attribute(RELEASE, str(score.release_id))
            span.set_attribute(SCORE, score.score)
            span.set_attribute(LABEL, LABELS[score.anomalous])


NO_SPANS = Spans(None, None, ())


@contextmanager
def spans_of(category: str, names: Sequence[str]) -> Iterator[Spans]:
    """The spans of a request about images with these names, for the length of a `with` block.

    Args:
        category: that is asked.
        names: of the images; empty where one has none.
    """
    tracer = _tracer()
    request = (
        None if tracer is None else tracer.start_span(f"judge {category}", attributes={CATEGORY: category})
    )
    if tracer is None or request is None or not request.is_recording():
        yield NO_SPANS
        return
    images = [request]
    if len(names) > 1:
        from opentelemetry.trace import set_span_in_context

        request.set_attribute(IMAGES, len(names))
        context = set_span_in_context(request)
        images = [tracer.start_span("image", context, attributes={CATEGORY: category}) for _ in names]
    for span, name in zip(images, names, strict=True):
        if name:
            span.set_attribute(IMAGE, name)
    all_spans = [*images, *([request] if len(names) > 1 else [])]
    try:
        yield Spans(tracer, request, images)
    except BaseException as error:
        _fail(all_spans, error)
        raise
    finally:
        for span in all_spans:
            span.end()


def _tracer() -> Tracer | None:
    """The program's tracer; None where it has not loaded OpenTelemetry."""
    get_tracer: Any = getattr(
        sys.modules.get(LIBRARY), "get_tracer", None
    )  # None, too, while it is being loaded
    return None if get_tracer is None else get_tracer("astmfr")


def _headers(span: Span) -> Headers:
    """The context of a span, as W3C writes it; none of one that is not sampled, which the server would heed no less."""
    if not span.get_span_context().trace_flags.sampled:
        return ()
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return tuple(carrier.items())


def _fail(spans: Sequence[Span], error: BaseException) -> None:
    from opentelemetry.trace import StatusCode

    given_up = isinstance(error, GeneratorExit | KeyboardInterrupt)
    sentence = error.message if isinstance(error, ClientError) else str(error) or type(error).__name__
    for span in spans:
        span.set_status(StatusCode.ERROR, "nobody waits for it any more" if given_up else sentence)
