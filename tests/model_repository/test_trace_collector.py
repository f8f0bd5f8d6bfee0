"""Where spans go, as an option or OpenTelemetry's own variables say; and what is refused."""

from __future__ import annotations

import socket

import pytest

from model_repository.trace_collector import (
    DISABLED,
    ENDPOINT,
    PROTOCOLS,
    TRACES_ENDPOINT,
    Collector,
    collector_of_environment,
    stated_collector,
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (ENDPOINT, TRACES_ENDPOINT, DISABLED, *PROTOCOLS):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ("https://traces.plant.example/otlp", "https://traces.plant.example/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_the_path_of_traces_is_added(url: str, expected: str) -> None:
    assert stated_collector(url).url == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is no URL with http"),
        ("localhost:4318", "is no URL with http"),
        ("grpc://localhost:4318", "is no URL with http"),
        ("http://", "is no URL with http"),
        ("http://localhost:99999", "is no URL with http"),
        ("http://local host", "is no URL; expected the URL of a collector"),
        ("http://localhost:4317", "names port 4317, where collectors take OTLP over gRPC"),
    ],
)
def test_what_is_no_collector_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stated_collector(url)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://me:secret@localhost:4318", "a user name"),
        ("grpc://me:secret@localhost:4318", "a user name"),
        ("http://localhost:4318/x?api_key=secret", "a query"),
        ("localhost:4317?api_key=secret", "a query"),
        ("http://localhost:4318#secret", "a fragment"),
    ],
)
def test_a_secret_is_refused_and_not_shown(url: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"{found}.*OTEL_EXPORTER_OTLP_HEADERS") as caught:
        stated_collector(url)
    assert "secret" not in str(caught.value)


def test_the_environment_names_it_as_opentelemetry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collector_of_environment() is None
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    assert collector_of_environment() == Collector("http://collector:4318/v1/traces")
    monkeypatch.setenv(TRACES_ENDPOINT, "http://collector:4318/as/it/is")
    assert collector_of_environment() == Collector("http://collector:4318/as/it/is")
    monkeypatch.setenv(DISABLED, "true")
    assert collector_of_environment() is None


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4317")
    with pytest.raises(ValueError, match=f"^{ENDPOINT}: .*4317"):
        collector_of_environment()


@pytest.mark.parametrize("variable", PROTOCOLS)
def test_grpc_is_refused_where_a_variable_asks_for_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "grpc")
    assert collector_of_environment() is None  # nothing names a collector
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    with pytest.raises(ValueError, match=f"^{variable} is grpc, and spans are sent over HTTP alone"):
        collector_of_environment()
    monkeypatch.setenv(variable, "http/protobuf")
    assert collector_of_environment() == Collector("http://collector:4318/v1/traces")


def test_whether_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        collector = stated_collector(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert collector.listens()
    assert not collector.listens()
    assert stated_collector("https://[::1]/").address == "[::1]:443"
