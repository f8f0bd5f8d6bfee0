"""A receiver of OTLP over HTTP: the protocol's own messages, of `opentelemetry-proto`, behind Python's web server.

It stands where a collector would. What it takes is decoded and answered as the protocol says; nothing is made up.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF, JSON = "application/x-protobuf", "application/json"  # Triton sends JSON
IDS = ("traceId", "spanId", "parentSpanId")


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
        kind = self.headers["Content-Type"]
        if self.path != "/v1/traces" or kind not in (PROTOBUF, JSON):
            self.send_error(415)
            return
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body) if kind == PROTOBUF else _from_json(body)
        self.server.receiver.spans += _spans(request)  # type: ignore[attr-defined]
        answer = ExportTraceServiceResponse().SerializeToString() if kind == PROTOBUF else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def _from_json(body: bytes) -> ExportTraceServiceRequest:
    """OTLP's JSON is protobuf's, but that ids are hexadecimal in it."""

    def convert(entry: dict[str, Any]) -> dict[str, Any]:
        ids = {key: base64.b64encode(bytes.fromhex(entry[key])).decode() for key in IDS if key in entry}
        return entry | ids

    message: ExportTraceServiceRequest = json_format.ParseDict(
        json.loads(body, object_hook=convert), ExportTraceServiceRequest()
    )
    return message


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
