"""A receiver of OTLP over HTTP: the protocol's own messages, of `opentelemetry-proto`, behind Python's web server.

It stands where a collector would. What it takes is decoded and answered as the protocol says; nothing is made up.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Received:
    """A span as it came; ids are empty where there is none."""

    name: str
    service: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Receiver:
    """What a receiver at `url` has taken."""

    url: str
    spans: list[Received] = field(default_factory=list)

    def named(self, name: str) -> list[Received]:
        """The spans of a name, in the order in which they came."""
        return [span for span in self.spans if span.name == name]

    def above(self, span: Received) -> list[str]:
        """Names of the spans that a span is below, the nearest first."""
        by_id = {(other.trace_id, other.span_id): other for other in self.spans}
        names: list[str] = []
        while (parent := by_id.get((span.trace_id, span.parent_id))) is not None:
            names.append(parent.name)
            span = parent
        return names


@contextmanager
def trace_receiver() -> Iterator[Receiver]:
    """Receive spans for the length of a `with` block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    server.receiver = receiver  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/traces" or self.headers["Content-Type"] != PROTOBUF:
            self.send_error(415)
            return
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.receiver.spans += _spans(ExportTraceServiceRequest.FromString(body))  # type: ignore[attr-defined]
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", PROTOBUF)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource_spans in request.resource_spans:
        resource = _values(resource_spans.resource.attributes)
        for scope in resource_spans.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    service=resource["service.name"],
                    trace_id=span.trace_id,
                    span_id=span.span_id,
                    parent_id=span.parent_span_id,
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    resource=resource,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in attributes}
