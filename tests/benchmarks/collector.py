"""Is one request followed in a real collector? `python -m tests.benchmarks.collector --tools FOLDER`.

    client, server  --OTLP-->  Rotel, a collector  --OTLP-->  Phoenix, which keeps spans and lists them

Both are packages of PyPI, in an environment of their own (700 MB) and not in this project's:

    python3.11 -m venv FOLDER && FOLDER/bin/pip install rotel==0.0.1a15 arize-phoenix==20.26.1

A tiny category is trained, 64 px, and served by the embedded server. An image is asked. Then Phoenix has to list one
trace of the program's span, the client's, the server's, and two of every step, each below the right one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click
import tritonclient.grpc as grpcclient
from opentelemetry import trace
from rich.console import Console

from client import JudgeClient, Verdict
from client.page.deploy_commands import end
from client.tracing.provider import tracing_to
from client.tracing.spans import CALL, RELEASE
from deploy.ports import Ports, claim_ports
from deploy.server import TritonServer, running_server
from deploy.tracing.tracing import Tracing
from model_repository.trace_collector import Collector, stated_collector
from tests.benchmarks.many_releases import make_build
from tests.benchmarks.releases import START_TIMEOUT_S, publish
from tests.benchmarks.results import run
from tests.products import ROOT, copy_backends

HOST = "127.0.0.1"
CATEGORY = "part"  # of `make_build`
PROGRAM_SPAN, JUDGE_SPAN, SERVER_SPAN = "a part comes", f"judge {CATEGORY}", "InferRequest"
ENSEMBLE = f"{CATEGORY}_encoded"  # an image's file goes through one step more than pixels
COMPUTE = "compute"
PACKAGES = {"rotel": "0.0.1a15", "arize-phoenix": "20.26.1"}  # which were tried
TRIES = 5  # server 2.51 may keep the last request's spans to itself until another comes
ARRIVAL_S = 8  # in which spans are listed: the server sends once a second, the collector five times
READY_S, STOP_S, TIMEOUT_S = 120, 10, 60
SpanPath = tuple[str, ...]  # names of spans, from the outermost


@dataclass(frozen=True)
class Tools:
    """The programs of an environment, and the versions of their packages."""

    rotel: Path
    phoenix: Path
    versions: dict[str, str]


@dataclass(frozen=True)
class Listed:
    """A span as Phoenix lists it; ids are hexadecimal, `parent` is empty for an outermost span."""

    name: str
    trace: str
    id: str
    parent: str
    start: datetime
    end: datetime
    attributes: dict[str, Any]


def find_tools(folder: Path) -> Tools:
    """Both programs.

    Raises:
        click.ClickException: one of them is not there.
    """
    phoenix = folder / "bin" / "phoenix"
    rotel = next(folder.glob("lib/python*/site-packages/rotel/rotel-agent"), None)
    if rotel is None or not phoenix.is_file():
        lacking = "rotel" if rotel is None else "arize-phoenix"
        raise click.ClickException(
            f"{folder} has no package {lacking}; make it with `python3.11 -m venv {folder}` and "
            f"`{folder}/bin/pip install {' '.join(f'{name}=={version}' for name, version in PACKAGES.items())}`."
        )
    packages = distributions(path=[str(rotel.parents[1])])
    versions = {package.name: package.version for package in packages if package.name in PACKAGES}
    return Tools(rotel, phoenix, versions)


@contextmanager
def running(
    command: Sequence[str | Path], *, log: Path, ready: Callable[[], bool], variables: dict[str, str]
) -> Iterator[None]:
    """A program for the length of a `with` block, once it is ready.

    Raises:
        click.ClickException: it ended, or was not ready in time; its last words say why.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | variables, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + READY_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                words = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
                raise click.ClickException(f"{Path(command[0]).name} did not become ready: {words}")
            time.sleep(0.2)
        yield
    finally:
        end(process, STOP_S)


@contextmanager
def running_phoenix(tools: Tools, work: Path) -> Iterator[str]:
    """Phoenix with an empty store; gives its URL."""
    ports = claim_ports(HOST, Ports())
    url = f"http://{HOST}:{ports.http}"
    variables = {
        "PHOENIX_WORKING_DIR": str(work),
        "PHOENIX_HOST": HOST,
        "PHOENIX_PORT": str(ports.http),
        "PHOENIX_GRPC_PORT": str(ports.grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return True
        except OSError:
            return False

    with running([tools.phoenix, "serve"], log=work / "phoenix.log", ready=ready, variables=variables):
        yield url


@contextmanager
def running_rotel(tools: Tools, work: Path, onward: str) -> Iterator[Collector]:
    """A collector that hands spans on to `onward`, a URL of OTLP over HTTP."""
    ports = claim_ports(HOST, Ports())
    collector = stated_collector(f"http://{HOST}:{ports.http}")
    command: list[str | Path] = [
        *(tools.rotel, "start"),
        *("--otlp-http-endpoint", f"{HOST}:{ports.http}", "--otlp-grpc-endpoint", f"{HOST}:{ports.grpc}"),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", onward),
    ]
    with running(command, log=work / "rotel.log", ready=collector.listens, variables={}):
        yield collector


def listed_spans(phoenix: str, trace_id: str) -> list[Listed]:
    """What Phoenix lists of a trace, the earliest first."""
    with urllib.request.urlopen(f"{phoenix}/v1/projects/default/spans?limit=1000", timeout=30) as answer:
        entries = json.load(answer)["data"]
    spans = [
        Listed(
            name=entry["name"],
            trace=entry["context"]["trace_id"],
            id=entry["context"]["span_id"],
            parent=entry["parent_id"] or "",
            start=datetime.fromisoformat(entry["start_time"]),
            end=datetime.fromisoformat(entry["end_time"]),
            attributes=entry["attributes"],
        )
        for entry in entries
    ]
    return sorted((span for span in spans if span.trace == trace_id), key=lambda span: span.start)


def path_of(span: Listed, spans: Sequence[Listed]) -> SpanPath:
    """The names of the spans that a span is below, and its own; a parent that is not listed is a question mark."""
    above = next((other for other in spans if other.id == span.parent), None)
    if above is None:
        return ("?", span.name) if span.parent else (span.name,)
    return (*path_of(above, spans), span.name)


def fault_of(spans: Sequence[Listed], steps: Sequence[str]) -> str | None:
    """What a trace lacks, in a sentence; None if it has each span once, and below the right one."""
    outer = (PROGRAM_SPAN, JUDGE_SPAN, CALL, SERVER_SPAN, ENSEMBLE)
    expected = [outer[: depth + 1] for depth in range(len(outer))]
    for step in steps:
        expected += [(*outer, step), (*outer, step, COMPUTE)]
    found = Counter(path_of(span, spans) for span in spans)
    wrong = [path for path in expected if found[path] != 1] + [path for path in found if path not in expected]
    if not wrong:
        return None
    path = wrong[0]
    return (
        f"the collector has {found[path]} spans {' > '.join(path)!r} of the request, expected {int(path in expected)}; "
        f"it has {', '.join(span.name for span in spans) or 'none'}."
    )


def follow(
    server: TritonServer, collector: Collector, phoenix: str, image: bytes, tell: Callable[[str], None]
) -> tuple[list[Listed], Verdict]:
    """Ask an image, as our commands trace it, until Phoenix lists all of its spans.

    Raises:
        click.ClickException: it does not.
    """
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        config = control.get_model_config(ENSEMBLE, client_timeout=TIMEOUT_S).config
    steps = [step.model_name for step in config.ensemble_scheduling.step]
    fault: str | None = None
    with (
        tracing_to(collector, tell),
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
    ):
        provider: Any = trace.get_tracer_provider()
        for _ in range(TRIES):
            with trace.get_tracer("line").start_as_current_span(PROGRAM_SPAN) as program:
                verdict = judge.judge(image)
            provider.force_flush()
            trace_id = f"{program.get_span_context().trace_id:032x}"
            deadline = time.monotonic() + ARRIVAL_S
            while time.monotonic() < deadline:
                spans = listed_spans(phoenix, trace_id)
                fault = fault_of(spans, steps)
                if fault is None:
                    return spans, verdict
                time.sleep(0.5)
    raise click.ClickException(f"After {TRIES} requests {fault}")


def tree(spans: Sequence[Listed]) -> Iterator[str]:
    """A line a span: its name, indented, when it began and what it took in ms."""
    yield f"{'':54}{'from':>8}{'for':>8}"
    for span in spans:
        name = "   " * (len(path_of(span, spans)) - 1) + span.name
        began, took = span.start - spans[0].start, span.end - span.start
        yield f"{name:54}{1000 * began.total_seconds():8.1f}{1000 * took.total_seconds():8.1f} ms"


def main() -> None:
    """Follow one request and print its tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="environment with rotel and arize-phoenix")
    tools = find_tools(parser.parse_args().tools.resolve())
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        repository = copy_backends(work / "models")
        publish(make_build(work), repository)
        image = next((work / "data").rglob("test/good/*.png")).read_bytes()
        with (
            running_phoenix(tools, work) as phoenix,
            running_rotel(tools, work, phoenix) as collector,
            running_server(
                repository=repository,
                log=work / "log",
                triton_env=ROOT / ".triton",
                timeout_s=START_TIMEOUT_S,
                tracing=Tracing(collector, rate=0),
            ) as server,
        ):
            spans, verdict = follow(server, collector, phoenix, image, console.print)
    told = next(span.attributes.get(RELEASE) for span in spans if span.name == JUDGE_SPAN)
    if told != str(verdict.release_id):
        raise click.ClickException(f"the span says release {told}, the verdict {verdict.release_id}.")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(tools.versions.items()))
    console.print(f"{versions}: trace {spans[0].trace} has {len(spans)} spans, each below the right one\n")
    for line in tree(spans):
        console.print(line, markup=False)


if __name__ == "__main__":
    run(main)
