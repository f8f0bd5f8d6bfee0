"""`--trace` of a command: its spans are at the collector when it has ended, and nothing is lost in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExportResult

from client.__main__ import main
from client.cli import tracing
from client.tracing.provider import CountedExporter, tracing_to
from client.tracing.spans import CALL
from model_repository.trace_collector import DISABLED, ENDPOINT, TRACES_ENDPOINT, Collector
from tests.client.judging.scripted_server import Script, scripted_server
from tests.client.samples import save_image
from tests.products import unused_url
from tests.trace_receiver import trace_receiver


def predict(image: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the command prints of an image, in a process of its own: a provider is a process's for good."""
    environment = {
        name: value for name, value in os.environ.items() if name not in (ENDPOINT, TRACES_ENDPOINT, DISABLED)
    }
    with scripted_server(Script()) as url:
        words = ["predict", str(image), "--category", "pill", "--url", url, *options]
        command = [sys.executable, "-m", "client", *words]
        return subprocess.run(
            command, env=environment | variables, capture_output=True, text=True, check=False, timeout=60
        )


def test_spans_are_at_the_collector_when_the_command_has_ended(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    with trace_receiver() as receiver:
        done = predict(image, "--trace", receiver.url, "--encoded", OTEL_SERVICE_NAME="line-3")
    assert done.returncode in (0, 1), done.stderr
    assert "Note" not in done.stderr
    (judged,), (call,) = receiver.named("judge pill"), receiver.named(CALL)
    assert receiver.above(call) == ["judge pill"]
    assert judged.attributes["astmfr.image"] == str(image)
    assert {judged.service, call.service} == {"line-3"}


def test_without_a_collector_images_are_judged_and_what_is_lost_is_told(tmp_path: Path) -> None:
    url, started_s = f"http://{unused_url()}", time.monotonic()
    done = predict(save_image(tmp_path / "a.png"), "--trace", url)
    assert done.returncode in (0, 1)
    assert time.monotonic() - started_s < 20
    notes = [line for line in done.stderr.splitlines() if line.startswith("Note: ")]
    assert notes == [
        f"Note: nothing listens at {url.removeprefix('http://')}; spans are lost until a collector does.",
        f"Note: 2 spans did not reach {url}/v1/traces; is a collector there?",
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size must be a positive integer"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "schedule_delay_millis must be positive"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "many", "must be a non-negative integer"),
    ],
)
def test_a_variable_that_opentelemetry_refuses_is_told_and_images_are_judged(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setattr(trace, "set_tracer_provider", lambda provider: pytest.fail("it would stay for good"))
    monkeypatch.setenv(variable, value)
    told: list[str] = []
    judged = False
    with tracing_to(Collector("http://localhost:4318/v1/traces"), told.append):
        judged = True
    assert judged
    (sentence,) = told
    assert sentence.startswith("OpenTelemetry cannot start with its variables here (")
    assert variable in sentence
    assert reason in sentence
    assert sentence.endswith("; nothing is traced.")


def test_an_export_that_raises_is_a_loss() -> None:
    def export(_spans: object) -> SpanExportResult:
        raise OSError("no such certificate")

    exporter = CountedExporter(SimpleNamespace(export=export))  # type: ignore[arg-type]
    assert exporter.export([SimpleNamespace()] * 3) is SpanExportResult.FAILURE  # type: ignore[list-item]
    assert exporter.lost == 3


def test_what_switches_opentelemetry_off_is_told_where_an_option_names_a_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Collector] = []
    monkeypatch.setattr(tracing, "_begin", lambda context, collector, stated: begun.append(collector))
    monkeypatch.setenv(DISABLED, "true")
    done = ask(monkeypatch, "--trace", "http://localhost:4318")
    assert f"Note: {DISABLED} is true; nothing is traced, though --trace names a collector." in done.stderr
    assert "Note" not in ask(monkeypatch, endpoint="http://localhost:4318").stderr
    assert begun == []


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "client.tracing.provider", None)  # type: ignore[arg-type]


def ask(monkeypatch: pytest.MonkeyPatch, *options: str, endpoint: str = "") -> Result:
    """What the command says in this process, before it finds no server."""
    monkeypatch.setenv(ENDPOINT, endpoint)
    words = ["predict", "a.png", "--category", "pill", "--url", unused_url(), *options]
    return CliRunner().invoke(main, words)


@pytest.mark.usefixtures("without_library")
def test_without_the_library_the_option_is_refused_and_the_variable_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = ask(monkeypatch, "--trace", "http://localhost:4318")
    assert done.exit_code == 2
    assert (
        "OpenTelemetry is not installed here; install the extra: pip install 'astmfr[trace]'." in done.stderr
    )
    done = ask(monkeypatch, endpoint="http://localhost:4318")
    assert f"Note: {ENDPOINT} is set, and OpenTelemetry is not installed here" in done.stderr
    assert "a.png" in done.stderr  # it goes on


def test_opentelemetrys_variable_names_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Collector] = []
    monkeypatch.setattr(tracing, "_begin", lambda context, collector, stated: begun.append(collector))
    ask(monkeypatch)
    assert begun == []
    ask(monkeypatch, endpoint="http://collector:4318")
    assert begun == [Collector("http://collector:4318/v1/traces")]


@pytest.mark.parametrize("command", ["predict", "watch", "page", "explain"])
def test_a_wrong_collector_is_refused(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--trace", "localhost:4318"])
    assert done.exit_code == 2
    assert "'localhost:4318' is no URL with http:// or https://" in done.stderr


def test_a_wrong_variable_hinders_nothing_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done = ask(monkeypatch, endpoint="http://collector:4317")
    assert f"Note: {ENDPOINT}: 'http://collector:4317' names port 4317" in done.stderr
    assert "nothing is traced." in done.stderr
    assert "a.png" in done.stderr
