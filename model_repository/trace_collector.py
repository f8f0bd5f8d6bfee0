"""Where spans go: a collector of OpenTelemetry, named by an option or by OpenTelemetry's own variables.

    --trace URL, else OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT  ->  Collector

The server and the client read them alike. Both send OTLP over HTTP, which is all that Triton can. Triton itself passes
over this file.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
DISABLED = "OTEL_SDK_DISABLED"  # true: whatever else is set, nothing is traced
SERVICE_NAME = "OTEL_SERVICE_NAME"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"  # of each request to the collector: a token, say
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TRACES_PATH = "/v1/traces"
GRPC_PORT = 4317  # of OTLP over gRPC; over HTTP it is 4318
PORTS = {"http": 80, "https": 443}
UNWANTED = {"@": "a user name (@)", "?": "a query (?)", "#": "a fragment (#)"}
LOOK_S = 1.0
EXPECTED = "expected the URL of a collector that takes OTLP over HTTP, e.g. http://localhost:4318"


@dataclass(frozen=True)
class Collector:
    """What takes spans.

    Attributes:
        url: with the path of traces, as OTLP over HTTP wants it.
    """

    url: str

    @property
    def address(self) -> str:
        """`host:port`."""
        host, port = _address(urlsplit(self.url))
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def listens(self) -> bool:
        """Whether something takes connections there now."""
        with contextlib.suppress(OSError), socket.create_connection(_address(urlsplit(self.url)), LOOK_S):
            return True
        return False


def stated_collector(url: str) -> Collector:
    """The collector of an option; the path of traces is added where it is missing. Ask `is_disabled`, too.

    Raises:
        ValueError: it is no such URL; the sentence says what it is.
    """
    parts = _checked(url)
    path = parts.path.rstrip("/")
    return Collector(parts._replace(path=path if path.endswith(TRACES_PATH) else path + TRACES_PATH).geturl())


def collector_of_environment() -> Collector | None:
    """The collector that OpenTelemetry's variables name; None where they name none, or switch it off.

    Raises:
        ValueError: what a variable says is no URL of OTLP over HTTP, or it asks for gRPC; the sentence names it.
    """
    if is_disabled():
        return None
    for variable in (TRACES_ENDPOINT, ENDPOINT):
        if url := os.environ.get(variable, "").strip():
            _require_http()
            try:
                return (
                    Collector(_checked(url).geturl())
                    if variable == TRACES_ENDPOINT
                    else stated_collector(url)
                )
            except ValueError as error:
                raise ValueError(f"{variable}: {error}") from None
    return None


def is_disabled() -> bool:
    """Whether OpenTelemetry is switched off by its own variable, whatever an option says."""
    return os.environ.get(DISABLED, "").strip().lower() == "true"


def _require_http() -> None:
    stated = next((name for name in PROTOCOLS if os.environ.get(name, "").strip()), None)
    if stated and os.environ[stated].strip().lower() == "grpc":
        raise ValueError(
            f"{stated} is grpc, and spans are sent over HTTP alone; say http/protobuf, and give the collector's "
            "endpoint for HTTP."
        )


def _checked(url: str) -> SplitResult:
    # First, so that no other sentence shows a secret.
    if found := next((what for sign, what in UNWANTED.items() if sign in url), None):
        raise ValueError(
            f"The collector's URL holds {found}, which everybody on this machine would read; leave it out, and name "
            f"what the collector asks for in {HEADERS}."
        )
    if re.search(r"[^!-~]", url):
        raise ValueError(f"{url!a} is no URL; {EXPECTED}.")
    parts = _split(url)
    if parts is None or not parts.hostname or parts.scheme not in PORTS:
        raise ValueError(f"{url!r} is no URL with http:// or https:// and a host; {EXPECTED}.")
    if parts.port == GRPC_PORT:
        raise ValueError(
            f"{url!r} names port {GRPC_PORT}, where collectors take OTLP over gRPC, and Triton sends it over HTTP; "
            "give the port of that, 4318 as a rule."
        )
    return parts


def _split(url: str) -> SplitResult | None:
    """Its parts; None where they are none, an impossible port say."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or PORTS[parts.scheme]
