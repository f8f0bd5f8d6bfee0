"""What a server is told of traces, whatever starts it, and what people are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest
from click.testing import CliRunner, Result

from deploy import __main__ as commands
from deploy.__main__ import main, serve
from deploy.tracing.tracing import OFF, Tracing
from model_repository.trace_collector import DISABLED, ENDPOINT, HEADERS, TRACES_ENDPOINT, Collector
from tests.deploy.kubernetes.rendering import example, of_kind, render
from tests.deploy.test_server_command import published
from tests.products import unused_url

__all__ = ["published"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (ENDPOINT, TRACES_ENDPOINT, DISABLED, "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(variable, raising=False)


def ask(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def trace_options(*words: object) -> list[str]:
    done = ask("command", "--json", *words)
    assert done.exit_code == 0, done.output
    return [word for word in json.loads(done.stdout)["arguments"] if word.startswith("--trace-config")]


def test_the_command_traces_where_that_is_asked_for(published: Path) -> None:
    assert trace_options("--repository", published) == []
    options = trace_options("--repository", published, "--trace", "http://collector:4318", "--trace-rate", 0)
    assert {
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=0",
        "--trace-config=opentelemetry,url=http://collector:4318/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=astmfr-server",
    } < set(options)


def test_opentelemetrys_own_variables_do_too(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "line-3")
    options = trace_options("--repository", published)
    assert "--trace-config=opentelemetry,url=http://collector:4318/v1/traces" in options
    assert "--trace-config=opentelemetry,resource=service.name=line-3" in options
    assert "--trace-config=rate=100" in options
    monkeypatch.setenv(DISABLED, "true")
    assert trace_options("--repository", published) == []


def test_what_switches_opentelemetry_off_does_so_for_an_option_too(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLED, "true")
    words = ("command", "--json", "--repository", published, "--trace", "http://collector:4318")
    assert trace_options(*words[1:]) == []
    assert (
        f"Note: {DISABLED} is true; nothing is traced, though --trace names a collector."
        in ask(*words).stderr
    )


def test_a_rate_without_a_collector_is_told(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("command", "--json", "--repository", published)
    assert "Note" not in ask(*words).stderr
    note = f"Note: --trace-rate 1 has no effect, as no collector is named: give --trace, or set {ENDPOINT}."
    assert note in ask(*words, "--trace-rate", 1).stderr
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    assert "Note" not in ask(*words, "--trace-rate", 1).stderr


def test_a_services_name_of_any_form_is_one_argument(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton takes what follows the first comma and the next sign of equality as it is."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "a b,c=d")
    options = trace_options("--repository", published, "--trace", "http://collector:4318")
    assert "--trace-config=opentelemetry,resource=service.name=a b,c=d" in options


def test_a_wrong_variable_hinders_no_server_and_is_told(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4317")
    done = ask("command", "--json", "--repository", published)
    assert done.exit_code == 0
    assert f"Note: {ENDPOINT}: 'http://collector:4317' names port 4317" in done.stderr
    assert "nothing is traced." in done.stderr


@pytest.mark.parametrize("verb", ["serve", "run", "command"])
def test_a_wrong_option_is_refused(published: Path, verb: str) -> None:
    done = ask(
        verb, "--repository", published, "--trace", "collector:4318", *(["true"] if verb == "run" else [])
    )
    assert done.exit_code == 2
    assert "'collector:4318' is no URL with http:// or https://" in done.stderr


def test_serve_hands_it_on_and_says_where_spans_go(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []
    monkeypatch.setattr(commands, "supervised_server", lambda **options: served.append(options))
    monkeypatch.setattr(commands, "serve_until_stopped", lambda starting: None)
    url = f"http://{unused_url()}"
    done = ask("serve", "--repository", published, "--trace", url)
    assert done.exit_code == 0, done.output
    assert served[0]["tracing"] == Tracing(Collector(f"{url}/v1/traces"), 100)
    assert (
        f"Note: spans of each request that a client traces, and of one in 100 others go to {url}"
        in done.stderr
    )
    assert f"Note: nothing listens at {url.removeprefix('http://')}; spans are lost" in done.stderr
    assert OFF.told() == []


def test_the_chart_traces_where_its_values_say_so() -> None:
    (plain,) = of_kind(render(example(1)), "Deployment").values()
    assert "--trace" not in json.dumps(plain)
    egress = [{"ports": [{"protocol": "TCP", "port": 4318}]}]
    asked = {"tracing": {"collector": "http://otel.monitoring:4318", "rate": 10}}
    values = example(1, **asked, networkPolicy={"egress": egress})
    (deployment,) = of_kind(render(values), "Deployment").values()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"--trace=http://otel.monitoring:4318", "--trace-rate=10"} < set(container["args"])
    serve.make_context("serve", list(container["args"]))  # or a UsageError
    assert {entry["name"] for entry in container["env"]} == {"POD_NAME", "OTEL_RESOURCE_ATTRIBUTES"}
    with pytest.raises(
        helm_python.HelmError, match=r"lets no pod reach it; add a rule for it to networkPolicy"
    ):
        render(example(1, **asked))
    assert not any("valueFrom" in entry and entry["name"] != "POD_NAME" for entry in container["env"])
    values["tracing"] = asked["tracing"] | {"secret": "otel"}
    (deployment,) = of_kind(render(values), "Deployment").values()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    expected = {"name": HEADERS, "valueFrom": {"secretKeyRef": {"name": "otel", "key": "headers"}}}
    assert expected in container["env"]


@pytest.mark.parametrize(
    ("tracing", "message"),
    [
        ({"collector": "otel:4318"}, "collector"),
        ({"collector": "http://me:secret@otel:4318"}, "collector"),
        ({"collector": "http://otel:4318/x?key=1"}, "collector"),
        ({"collector": "http://otel:4318#x"}, "collector"),
        ({"collector": "http://otel:x"}, "collector"),
        ({"collector": "http://otel:4317"}, "4317 collectors take OTLP over gRPC"),
        ({"collector": "http://[::1]:4317/v1/traces"}, "4317 collectors take OTLP over gRPC"),
        ({"collector": "http://otel:99999"}, "there is no port 99999"),
        ({"collector": "http://otel:0"}, "there is no port 0"),
        ({"rate": 1}, "tracing.rate is 1, and tracing.collector is empty"),
        ({"secret": "otel"}, "tracing.secret names what a collector asks for"),
    ],
)
def test_the_chart_refuses_what_serve_does(tracing: dict[str, Any], message: str) -> None:
    egress = {"egress": [{"ports": [{"protocol": "TCP", "port": 4318}]}]}
    with pytest.raises(helm_python.HelmError, match=message):
        render(example(1, tracing=tracing, networkPolicy=egress))
