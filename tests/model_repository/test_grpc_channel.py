"""Every program of this project reaches a server in the same way: directly where it is on this host."""

from __future__ import annotations

import os
import re

import pytest

from model_repository.grpc_channel import (
    PROXY_VARIABLES,
    connect,
    direct_environment,
    is_loopback,
    proxy_of,
    split_url,
)
from model_repository.grpc_endpoint import Endpoint
from tests.products import ROOT


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*PROXY_VARIABLES, "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8001", ("localhost", 8001)),
        ("10.0.0.7:1", ("10.0.0.7", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("line-3.plant.example:8001", ("line-3.plant.example", 8001)),
    ],
)
def test_host_and_port(url: str, expected: tuple[str, int]) -> None:
    assert split_url(url) == expected


def test_keys_go_to_another_host_only_where_nobody_can_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"admin": "secret"}
    with pytest.raises(
        ValueError, match=r"^Everybody on the way to line-3 could read the keys.*ASTMFR_TLS_CA"
    ) as caught:
        connect(Endpoint("line-3:8001", keys=keys))
    assert "secret" not in str(caught.value)
    connect(Endpoint("line-3:8001")).close()
    connect(Endpoint("127.0.0.1:8001", keys=keys)).close()
    monkeypatch.setenv("ASTMFR_INSECURE", "1")
    connect(Endpoint("line-3:8001", keys=keys)).close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost:8001", "begins with http://, and gRPC takes no scheme"),
        ("https://localhost", "begins with https://, and gRPC takes no scheme"),
        ("grpc://localhost:8001", "begins with grpc://, and gRPC takes no scheme"),
        ("localhost", "is no gRPC endpoint"),
        (":8001", "is no gRPC endpoint"),
        ("", "is no gRPC endpoint"),
        ("::1:8001", "is no gRPC endpoint"),
        ("localhost:8001/v2", "is no gRPC endpoint"),
        ("local host:8001", "is no gRPC endpoint"),
        ("user:secret@localhost:8001", "is no gRPC endpoint"),
        ("localhost:0", "names port 0, and ports go from 1 to 65535"),
        ("localhost:99999", "names port 99999, and ports go from 1 to 65535"),
    ],
)
def test_another_form_is_named(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match="expected host:port") as caught:
        connect(url)
    assert str(caught.value) == (
        f"{url!r} {reason}; expected host:port of the server's gRPC endpoint, e.g. localhost:8001."
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
    ],
)
def test_this_host_is_never_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROXY_VARIABLES:
        monkeypatch.setenv(variable, "http://proxy.example:3128")
    url = f"[{host}]:8001" if ":" in host else f"{host}:8001"
    assert is_loopback(host)
    assert proxy_of(url) is None
    assert not set(PROXY_VARIABLES).intersection(direct_environment(url))
    assert direct_environment("line-3:8001") == os.environ


@pytest.mark.parametrize("host", ["line-3", "10.0.0.7", "128.0.0.1", "localhost.example", "notlocalhost"])
def test_another_host_is_not_taken_for_this_one(host: str) -> None:
    assert not is_loopback(host)


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("line-3:8001") is None
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.example:3128/")
    assert proxy_of("line-3:8001") == "proxy.example:3128 (http_proxy)"
    monkeypatch.setenv("grpc_proxy", "http://other.example:80")
    assert proxy_of("line-3:8001") == "other.example:80 (grpc_proxy)"
    monkeypatch.setenv("grpc_proxy", "socks5://other.example:80")  # gRPC takes none but HTTP's
    assert proxy_of("line-3:8001") is None


@pytest.mark.parametrize(
    ("excepted", "direct"),
    [
        ("line-3.plant.example", True),
        ("plant.example", True),
        (".plant.example, other", True),
        ("*.plant.example", True),
        ("*", True),
        ("ant.example", False),
        ("other", False),
        ("", False),
        (" , ", False),
    ],
)
def test_exceptions(excepted: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert (proxy_of("line-3.plant.example:8001") is None) == direct


def test_nothing_else_opens_a_channel() -> None:
    """A channel that is opened elsewhere cancels its calls at their deadline, of which the server dies."""
    opened = [
        str(path.relative_to(ROOT))
        for folder in ("client", "deploy", "export", "model_repository")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if re.search(r"InferenceServerClient\(|\b(in)?secure_channel\(", path.read_text())
    ]
    # To Ray, which is asked nothing over it: whether anybody speaks gRPC there.
    assert opened == ["client/archiving/machines/cluster.py"]
