"""How a program of this project connects to a Triton server; the server itself passes over this file.

    host:port or Endpoint (`grpc_endpoint`: certificates, keys)  ->  `connect`: options, credentials, proxy
        ->  PatientChannel (`patient_calls`: deadlines)  ->  tritonclient's client

Every channel option stands here.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import grpc
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2_grpc

from model_repository.grpc_endpoint import INSECURE, KEY_HEADER, TLS_CA, Endpoint, read_pem
from model_repository.patient_calls import Metadata, PatientChannel

URL_FORM = re.compile(r"(?P<host>\[[^\[\]\s]+\]|[^\[\]\s:/@]+):(?P<port>\d{1,5})")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
LARGEST_PORT = 65535
# What gRPC reads, in its order, and what makes exceptions of them.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
# A server that was started again is found within 2 s. gRPC waits up to two minutes between tries, and gives each of
# them 20 s, which one takes that a machine does not answer while it boots.
FIRST_RECONNECT_MS = 100
LAST_RECONNECT_MS = 200
CONNECT_MS = 1500
# A call is pinged no more often than Triton allows (`--grpc-http2-min-recv-ping-interval-without-data`, 300 s): it
# answers the third ping too many with GOAWAY "too_many_pings", and ends every call of the connection. A dead network is
# noticed much earlier: what was sent and is not acknowledged for KEEPALIVE_TIMEOUT_MS ends the connection, because
# gRPC hands that to TCP.
KEEPALIVE_MS = 310_000
KEEPALIVE_TIMEOUT_MS = 5_000


class TritonClient(grpcclient.InferenceServerClient):  # type: ignore[misc]
    """tritonclient's client, whose `client_timeout` ends the wait for an answer and never the call."""

    def __init__(self, endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> None:
        """Connect when the first call is made."""
        super().__init__(endpoint.url, creds=credentials, channel_args=channel_options(endpoint))
        keys = [(KEY_HEADER + name, value) for name, value in endpoint.keys.items()]
        self._channel: Any = PatientChannel(self._channel, metadata=keys)
        self._client_stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    @property
    def has_room(self) -> bool:
        """Whether a call would begin at once, see `PatientChannel.has_room`."""
        return bool(self._channel.has_room)

    def infer_later(self, message: Any, *, timeout_s: float, headers: Metadata = ()) -> Any:
        """Send a `ModelInfer` message with headers; gives gRPC's future, whose call no deadline ends.

        Raises:
            grpc.RpcError: it cannot begin within `timeout_s`.
            ValueError: the channel is closed.
        """
        return self._client_stub.ModelInfer.future(message, timeout=timeout_s, metadata=headers)


def connect(server: Endpoint | str) -> TritonClient:
    """A gRPC channel to a server, to be closed by the caller; it connects when the first call is made.

    A server on this host is never asked through a proxy. Of `host:port`, certificates and keys are those that the
    environment names, see `Endpoint.of`.

    Raises:
        ValueError: the URL has another form, a certificate or key cannot be used, or keys would cross a network
            unencrypted; the sentence says which.
    """
    endpoint = Endpoint.of(server)
    host, _ = split_url(endpoint.url)
    if endpoint.keys and endpoint.tls is None and not is_loopback(host) and os.environ.get(INSECURE) != "1":
        raise ValueError(
            f"Everybody on the way to {host} could read the keys, as the connection is not encrypted; give the "
            f"certificate of the server's authority ({TLS_CA}), or {INSECURE}=1 in a network that is trusted."
        )
    return TritonClient(endpoint, _credentials(endpoint))


def channel_options(endpoint: Endpoint) -> list[tuple[str, int]]:
    """How gRPC connects, pings and gives up; retries are the caller's, who knows for how long."""
    return [
        ("grpc.max_send_message_length", endpoint.largest_message),
        ("grpc.max_receive_message_length", endpoint.largest_message),
        ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", LAST_RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),  # a try's time, whatever its name says
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", int(proxy_of(endpoint.url) is not None)),
    ]


def _credentials(endpoint: Endpoint) -> grpc.ChannelCredentials | None:
    if endpoint.tls is None:
        return None
    pem = read_pem(endpoint.tls)
    return grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)


def split_url(url: str) -> tuple[str, int]:
    """Host and port of a server's gRPC endpoint.

    Raises:
        ValueError: it is not `host:port`; the sentence says what it is.
    """
    expected = "expected host:port of the server's gRPC endpoint, e.g. localhost:8001"
    text = str(url)
    if scheme := SCHEME.match(text):
        raise ValueError(f"{text!r} begins with {scheme[0]}, and gRPC takes no scheme; {expected}.")
    form = URL_FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{text!r} is no gRPC endpoint; {expected}.")
    port = int(form["port"])
    if not 0 < port <= LARGEST_PORT:
        raise ValueError(f"{text!r} names port {port}, and ports go from 1 to {LARGEST_PORT}; {expected}.")
    return form["host"].strip("[]"), port


def is_loopback(host: str) -> bool:
    """Whether a host's name or address can only mean the machine that asks."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith((".localhost", "localhost.localdomain")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1
    return bool(mapped.is_loopback or mapped.is_unspecified)


def proxy_of(url: str) -> str | None:
    """The proxy that calls to `host:port` go through, with the variable that names it; None where they go directly.

    As gRPC does, it takes the first variable that is set, and only a proxy of the form `http://host:port`. A user name
    and password in it are left out.
    """
    host, _ = split_url(url)
    if is_loopback(host) or _is_excepted(host):
        return None
    variable = next(filter(os.environ.get, PROXY_VARIABLES), None)
    proxy = urlsplit(os.environ[variable]) if variable else None
    if proxy is None or proxy.scheme != "http" or not proxy.netloc:
        return None
    return f"{proxy.netloc.rpartition('@')[2]} ({variable})"


def through_proxy(url: str) -> str:
    """For messages: what calls to `host:port` go through; nothing where they go directly."""
    proxy = proxy_of(url)
    return f" through the proxy {proxy}" if proxy else ""


def _is_excepted(host: str) -> bool:
    """Whether a host, or a domain that it is in, is among those that are asked without a proxy."""
    excepted = next(filter(None, map(os.environ.get, NO_PROXY_VARIABLES)), "")
    names = (
        name.strip().removeprefix("*").strip(".").lower() for name in excepted.split(",") if name.strip()
    )
    return any(not name or f".{host.lower()}".endswith(f".{name}") for name in names)


def direct_environment(url: str) -> Mapping[str, str]:
    """The environment for another program that asks `host:port` over gRPC; no proxies for a server on this host."""
    if not is_loopback(split_url(url)[0]):
        return os.environ
    return {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES}
