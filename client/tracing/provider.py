"""The provider of tracers of a command: spans go to a collector, and those that did not come there are counted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME as SERVICE
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from model_repository.trace_collector import SERVICE_NAME, Collector

CLIENT_NAME = "astmfr-client"
LAST_TRY_S = 2.0  # of an export; a command does not wait longer for a collector at its end


class CountedExporter(SpanExporter):
    """An exporter that counts what it cannot hand on.

    Attributes:
        lost: spans.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand spans on; whatever stands in their way, a certificate's file that is missing say, is a loss."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Nothing comes any more."""
        self._exporter.shutdown()


@contextmanager
def tracing_to(collector: Collector, tell: Callable[[str], None]) -> Iterator[None]:
    """Trace for the length of a `with` block; a provider that the program has already stays, and takes the spans.

    Args:
        collector: where spans go.
        tell: is given a sentence about spans that were lost, or about variables that cannot be used: nothing is traced
            then, and the block runs all the same.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield
        return
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # one sentence tells of all that is lost
    built = _build(collector, tell)
    if built is None:
        yield
        return
    exporter, provider = built
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
        if exporter.lost:
            tell(f"{exporter.lost:,} spans did not reach {collector.url}; is a collector there?")


def _build(
    collector: Collector, tell: Callable[[str], None]
) -> tuple[CountedExporter, TracerProvider] | None:
    """None where OpenTelemetry takes one of its variables' values for none, which is told."""
    named = {} if os.environ.get(SERVICE_NAME) else {SERVICE: CLIENT_NAME}
    try:
        exporter = CountedExporter(OTLPSpanExporter(collector.url, timeout=LAST_TRY_S))
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except Exception as error:  # whatever it raises; its variables are many
        names = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_")))
        reason = str(error).rstrip(".") or type(error).__name__
        tell(f"OpenTelemetry cannot start with its variables here ({names}): {reason}; nothing is traced.")
        return None
    return exporter, provider
