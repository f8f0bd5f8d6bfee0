"""How a program of this project connects to a Triton server; the server itself passes over this file."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import tritonclient.grpc as grpcclient

URL_FORM = re.compile(r"(?P<host>\[[^\[\]\s]+\]|[^\[\]\s:/@]+):(?P<port>\d{1,5})")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
LARGEST_PORT = 65535
# What gRPC reads, in its order, and what makes exceptions of them.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
LARGEST_MESSAGE = 2**31 - 1  # bytes; gRPC's own limit is 4 MiB for what is received
# A server that was started again is found again at once, not after gRPC's two minutes.
FIRST_RECONNECT_MS = 100
LAST_RECONNECT_MS = 200


def open_channel(url: str) -> grpcclient.InferenceServerClient:
    """A gRPC channel to `host:port`, to be closed by the caller; it connects when the first call is made.

    A server on this host is never asked through a proxy.

    Raises:
        ValueError: the URL has another form; the sentence says which.
    """
    split_url(url)
    return grpcclient.InferenceServerClient(
        url,
        channel_args=[
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", LAST_RECONNECT_MS),
            ("grpc.enable_http_proxy", int(proxy_of(url) is not None)),
        ],
    )


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
