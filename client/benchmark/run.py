"""Measure the ensemble and what it is compared with, in one run and in turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from tritonclient.utils import InferenceServerException

from client.benchmark.calls import measure_calls
from client.benchmark.chain import GRAPHS, BareChain, default_settings, find_settings
from client.benchmark.contenders import Bench, Run
from client.benchmark.images import load_pixels
from client.benchmark.machine import is_here, this_machine, versions
from client.benchmark.measured import BEYOND, Measured
from client.benchmark.perf_analyzer import PerfAnalyzer
from client.benchmark.result import BenchResult, Header
from client.console import console
from client.judging.calls import named_error
from client.judging.connection import JudgeClient
from model_repository.grpc_channel import connect

ROUNDS = 5  # all of them in turns: the machine's speed may drift during the run
POINTS = (1, 2, 4, 8, 16)  # of a sweep


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        requests: of each measurement that a bar stands on, over all rounds.
        sweep_requests: of each point of a sweep; 0 leaves the sweeps and the client's ways to ask out.
        concurrencies: requests in flight, the points of the one sweep.
        batches: images a request, the points of the other sweeps; more than the ensemble takes are left out.
    """

    requests: int
    sweep_requests: int
    concurrencies: Sequence[int] = POINTS
    batches: Sequence[int] = POINTS


def benchmark_category(
    *,
    category: str,
    url: str,
    timeout_s: float,
    images_dir: Path,
    build: Path,
    perf_analyzer: str | None,
    options: Options,
) -> BenchResult:
    """Read real images, find the server and the binary, and measure.

    Args:
        category, url, timeout_s: see `JudgeClient`; perf_analyzer's requests have no such deadline.
        images_dir: images to send, MAX_IMAGES of them spread over the folder.
        build: build/<category>; the bare chain runs the graphs there that are of the served precision.
        perf_analyzer: the binary, or None to look for it.
        options: how much is measured.

    Raises:
        ClientError: no server, no images, a model that is no category, or no binary that runs here.
    """
    analyzer = PerfAnalyzer(perf_analyzer)
    with (
        JudgeClient(url, category=category, timeout_s=timeout_s, probe=True) as judge,
        closing(connect(judge.endpoint)) as client,
    ):
        images = load_pixels(
            images_dir,
            image_size=judge.image_size,
            bit_depth=judge.bit_depth,
            keep_aspect=judge.keep_aspect,
        )
        try:
            header = describe(judge, client, analyzer, n_images=len(images))
        except InferenceServerException as error:
            raise named_error(error, url=url, timeout_s=timeout_s) from None
        # Where `export` keeps the graphs of a precision.
        chain = open_chain(build if judge.precision == "fp32" else build / judge.precision, images)
        return measure_all(Bench(judge, client, analyzer, images=images, chain=chain), header, options)


def open_chain(build: Path, images: NDArray[np.uint8]) -> BareChain | None:
    """The bare chain with the best settings of this machine; None where its graphs are missing."""
    if not all((build / graph).is_file() for graph in GRAPHS):
        console.print(
            f"No bare chain: {build} does not hold {' and '.join(GRAPHS)}; they come with `python -m export onnx`, "
            "and --build-dir says where they are."
        )
        return None
    with console.status("The bare chain's best settings"):
        return BareChain(build, find_settings(build, images))


def measure_all(bench: Bench, header: Header, options: Options) -> BenchResult:
    """Latencies in turns, then the sweeps, then throughput at its best in turns."""
    figures: dict[str, Any] = {}
    runs = {
        "ensemble": bench.ask(),
        "encoded": bench.ask(encoded=True),
        "decoding": Run(bench.decode),
    }
    if bench.chain is not None:
        figures["chain_settings"] = bench.chain.settings
        runs["bare_chain"] = bench.run_chain(bench.chain)
        runs["default_chain"] = bench.run_chain(BareChain(bench.chain.build, default_settings()))
    figures |= in_turns(runs, options.requests, description="Latency, in turns")
    if options.sweep_requests:
        figures |= sweep(bench, options)
        figures |= best_throughput(bench, figures, options)
        figures["calls"] = measure_calls(
            bench.judge,
            images=[Image.fromarray(image) for image in bench.images],
            requests=options.sweep_requests,
            shared_memory=header.server_is_here,
        )
    return BenchResult(header=header, **figures)


def in_turns(runs: dict[str, Run], requests: int, *, description: str) -> dict[str, Measured]:
    """Measure everything ROUNDS times, one after the other."""
    turns = [run for _ in range(ROUNDS) for run in runs.values()]
    for run in track(turns, description=description, console=console, transient=True):
        run.add_round(-(-requests // ROUNDS))
    return {name: run.measured() for name, run in runs.items()}


def sweep(bench: Bench, options: Options) -> dict[str, tuple[Measured, ...]]:
    """One measurement a point."""
    batches = [batch for batch in options.batches if batch <= bench.judge.max_batch]
    sweeps = {
        "concurrency_sweep": [bench.ask(concurrency=number) for number in options.concurrencies],
        "batch_sweep": [bench.ask(batch=batch) for batch in batches],
    }
    if bench.chain is not None:
        sweeps["chain_batch_sweep"] = [bench.run_chain(bench.chain, batch=batch) for batch in batches]
    points = [run for runs in sweeps.values() for run in runs]
    for run in track(points, description="Sweeps", console=console, transient=True):
        run.add_round(max(options.sweep_requests // run.batch, 2 * run.concurrency, 2 * BEYOND))
    return {name: tuple(run.measured() for run in runs) for name, runs in sweeps.items()}


def best_throughput(
    bench: Bench, swept: dict[str, tuple[Measured, ...]], options: Options
) -> dict[str, Measured]:
    """The best points of the sweeps again, in turns."""
    best = max(swept["concurrency_sweep"], key=lambda point: point.throughput)
    runs = {"loaded": bench.ask(concurrency=best.concurrency)}
    if bench.chain is not None:
        best_chain = max(swept["chain_batch_sweep"], key=lambda point: point.throughput)
        runs["loaded_chain"] = bench.run_chain(bench.chain, batch=best_chain.batch)
    return in_turns(runs, options.requests, description="Throughput, in turns")


def describe(
    judge: JudgeClient, client: grpcclient.InferenceServerClient, analyzer: PerfAnalyzer, *, n_images: int
) -> Header:
    """The head of a result."""
    server: Any = client.get_server_metadata(client_timeout=judge.timeout_s)
    return Header(
        category=judge.category,
        preset=judge.preset,
        precision=judge.precision,
        platform=judge_platform(judge, client),
        release_id=judge.release_id,
        image_size=judge.image_size,
        n_images=n_images,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        server_is_here=is_here(judge.url),
        server=f"{server.name} {server.version}",
        perf_analyzer=analyzer.version,
        versions=versions(),
    )


def judge_platform(judge: JudgeClient, client: grpcclient.InferenceServerClient) -> str:
    """What runs the backbones: the backend of the step that gives the teacher's features."""
    ensemble: Any = client.get_model_config(judge.category, client_timeout=judge.timeout_s).config
    steps = ensemble.ensemble_scheduling.step
    teacher = next((step.model_name for step in steps if "teacher_1" in step.output_map), None)
    if teacher is None:
        return "unknown"
    config: Any = client.get_model_config(teacher, client_timeout=judge.timeout_s).config
    return str(config.backend)
