"""What does tracing cost? `python -m tests.benchmarks.traces --build build/pill --images FOLDER`.

One server, whose rate is changed between turns; a receiver in a process of its own takes the spans. In each turn every
rate is measured once, in another order, and compared with no tracing in that turn. On a machine with other work the
processor's time says most.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from rich.console import Console
from rich.table import Table

from client import JudgeClient
from client.benchmark.images import load_pixels
from deploy.server import TritonServer, running_server
from deploy.tracing.tracing import Tracing
from export.manifest import read_manifest
from model_repository.image_size import ImageSize, size_text
from model_repository.trace_collector import stated_collector
from tests.benchmarks.load import closed_loop
from tests.benchmarks.releases import publish
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import ROOT, copy_backends

TIMEOUT_S = 60
Figures = tuple[float, float, float, float]  # images/s, ms of one alone, CPU ms of server and client
NONE, CLIENT = "nothing is traced", "the client traces each"
NEVER = "1000000000"  # 0 is taken at the start alone
RATES = {NONE: NEVER, "one in 100": "100", "each": "1", CLIENT: NEVER}
RECEIVE = """
import threading
from tests.trace_receiver import trace_receiver
with trace_receiver() as receiver:
    print(receiver.url, flush=True)
    threading.Event().wait()
"""


@contextmanager
def receiver() -> Iterator[str]:
    """A receiver in a process of its own; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def measure(
    server: TritonServer,
    category: str,
    pixels: NDArray[Any],
    *,
    name: str,
    tracer: Any,
    asked: argparse.Namespace,
) -> Figures:
    """What requests take while one rate holds."""
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        control.update_trace_settings(settings={"trace_rate": RATES[name]})

    @contextmanager
    def connect() -> Iterator[Any]:
        with JudgeClient(server.grpc_url, category=category, timeout_s=TIMEOUT_S) as judge:
            yield lambda number: judge.judge(pixels[number % len(pixels)])

    own = tracer if name == CLIENT else trace.ProxyTracerProvider().get_tracer
    with mock.patch.object(trace, "get_tracer", own):
        closed_loop(connect, concurrency=asked.in_flight, requests=asked.requests // 10)
        server_s, client_s = cpu_s(server.pid), time.process_time()
        throughput = closed_loop(connect, concurrency=asked.in_flight, requests=asked.requests).throughput
        server_ms = 1000 * (cpu_s(server.pid) - server_s) / asked.requests
        client_ms = 1000 * (time.process_time() - client_s) / asked.requests
        alone = closed_loop(connect, concurrency=1, requests=asked.requests // 2)
    return throughput, statistics.median(alone.latencies_ms), server_ms, client_ms


def cpu_s(pid: int) -> float:
    """Seconds of the processor that a process has had, its children aside."""
    taken = psutil.Process(pid).cpu_times()
    return float(taken.user + taken.system)


def main() -> None:
    """Measure some turns and print a table."""
    parser = build_parser(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="in which each rate is measured once")
    parser.add_argument("--requests", type=int, default=400, help="of each measurement")
    parser.add_argument("--in-flight", type=int, default=4, help="requests at a time")
    parser.add_argument("--json", type=Path, default=FOLDER / "traces.json", help="gets the results")
    asked = parser.parse_args()
    manifest = read_manifest(asked.build)
    category, size = manifest.category, manifest.config.image_size
    pixels = load_pixels(asked.images, image_size=size, bit_depth=manifest.provenance.bit_depth)
    taken: dict[str, list[Figures]] = {name: [] for name in RATES}
    with tempfile.TemporaryDirectory() as folder, receiver() as url:
        collector = stated_collector(url)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector.url)))
        repository = copy_backends(Path(folder) / "model_repository")
        publish(asked.build, repository)
        with running_server(
            repository=repository,
            log=Path(folder) / "log",
            triton_env=ROOT / ".triton",
            tracing=Tracing(collector, rate=0),
        ) as server:
            for _ in range(asked.turns):
                for name in random.sample([*RATES], len(RATES)):
                    figures = measure(
                        server, category, pixels, name=name, tracer=provider.get_tracer, asked=asked
                    )
                    taken[name].append(figures)
        provider.shutdown()
    report(taken, size, asked)


def report(taken: dict[str, list[Figures]], size: ImageSize, asked: argparse.Namespace) -> None:
    """Print medians of the turns, and of what each turn has beside no tracing."""
    heads = (
        f"{head} (of none)" for head in ("images/s", "ms, one alone", "CPU ms, server", "CPU ms, client")
    )
    table = Table("traced", *heads, title=f"{size_text(size)} px, {asked.turns} turns")
    results = {}
    for name, turns in taken.items():
        columns = [*zip(*turns, strict=True)]
        beside = [*zip(*taken[NONE], strict=True)]
        shares = [
            statistics.median(a / b for a, b in zip(column, none, strict=True))
            for column, none in zip(columns, beside, strict=True)
        ]
        medians = [statistics.median(column) for column in columns]
        results[name] = {"medians": medians, "shares": shares, "turns": turns}
        cells = (f"{median:.2f} ({share:.3f})" for median, share in zip(medians, shares, strict=True))
        table.add_row(name, *cells)
    Console(width=130, highlight=False).print(table)
    write_results(asked.json, results, [])


if __name__ == "__main__":
    run(main)
