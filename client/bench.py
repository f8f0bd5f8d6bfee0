"""The ensemble over gRPC against the bare ONNX Runtime chain, in one run and in turns."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from client.bare_chain import BareChain, Spinning
from client.console import console
from client.errors import ClientError, ImageFileError
from client.files import write_text
from client.images import find_images, load_image
from client.inference import JudgeClient
from client.perf_analyzer import PerfAnalyzer
from model_repository.image_decoder.image_decoding import resize_image

MAX_IMAGES = 16  # sent in turn
ROUNDS = 3  # all of them in turns: the machine's speed may drift during the run
WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Measured:
    """Latency of single images, milliseconds, and images a second."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    requests: int


@dataclass(frozen=True)
class BenchResult:
    """What bench.json holds.

    Attributes:
        ensemble: at batch 1, one request in flight.
        bare_chain: the same graphs in one process, its threads spinning always (ONNX Runtime's default) or
            never, whichever had the lower p50.
        tuned_chain: the same with the session options that the served backbones have.
        loaded: the ensemble with `concurrency` requests in flight.
        p50_ratio: ensemble over bare chain.
        tuned_p50_ratio: ensemble over tuned chain.
        throughput_ratio: loaded ensemble over bare chain.
        threads: of the chains' sessions, and of the server's unless told otherwise.
        bare_chain_spinning: always or never.
    """

    category: str
    ensemble: Measured
    bare_chain: Measured
    tuned_chain: Measured
    loaded: Measured
    concurrency: int
    p50_ratio: float
    tuned_p50_ratio: float
    throughput_ratio: float
    threads: int
    bare_chain_spinning: str
    image_size: int
    perf_analyzer: str
    machine: str


def benchmark_category(
    *,
    category: str,
    url: str,
    timeout_s: float,
    images_dir: Path,
    build: Path,
    requests: int,
    concurrency: int,
    threads: int,
    perf_analyzer: str | None,
) -> BenchResult:
    """Read real images, find the server and the binary, and `run_benchmark`.

    Args:
        timeout_s: deadline of the calls that look the category up, seconds.
        images_dir: images to send, MAX_IMAGES of them spread over the folder.
        build: build/<category>; the bare chain runs the graphs there that are of the served precision.
        threads: of the bare chain; 0 is one a core.
        perf_analyzer: the binary, or None to look for it.

    Raises:
        ClientError: no server, no images, or no binary that runs here.
    """
    binary = PerfAnalyzer(perf_analyzer)
    files = find_images([images_dir])
    with JudgeClient(url, category=category, timeout_s=timeout_s) as judge:
        size, precision = judge.image_size, judge.precision
    n_sent = min(len(files), MAX_IMAGES)
    spread = [files[index * len(files) // n_sent].path for index in range(n_sent)]
    return run_benchmark(
        category=category,
        url=url,
        images=load_pixels(spread, image_size=size),
        build=build if precision == "fp32" else build / precision,  # where `export` keeps it
        requests=requests,
        concurrency=concurrency,
        threads=threads or len(os.sched_getaffinity(0)),
        perf_analyzer=binary,
    )


def load_pixels(paths: Sequence[Path], *, image_size: int) -> NDArray[np.uint8]:
    """Resized images [N, S, S, 3] of those files that can be read.

    Raises:
        ImageFileError: none can.
    """
    pixels, faults = [], []
    for path in paths:
        try:
            pixels.append(resize_image(load_image(path), image_size))
        except ImageFileError as error:
            faults.append(error)
    if not pixels:
        raise faults[0]
    return np.stack(pixels)


def run_benchmark(
    *,
    category: str,
    url: str,
    images: NDArray[np.uint8],
    build: Path,
    requests: int,
    concurrency: int,
    threads: int,
    perf_analyzer: PerfAnalyzer,
) -> BenchResult:
    """Measure ensemble and bare chain in turns, then the ensemble under load.

    Args:
        category: the ensemble.
        url: host:port of the gRPC endpoint.
        images: [N, S, S, 3] uint8 real images.
        build: folder with teacher.onnx and student.onnx, the very files that are served.
        requests: in all, of each.
        concurrency: requests in flight under load.
        threads: of the bare chain's sessions; the server's should be the same.
        perf_analyzer: the binary.

    Raises:
        BenchmarkError: perf_analyzer or ONNX Runtime cannot run.
    """
    chains = {spinning: BareChain(build, threads=threads, spinning=spinning) for spinning in Spinning}
    for chain in chains.values():
        chain.latencies_ms(images, requests=WARM_UP_RUNS)  # the server has had its own
    each = max(1, requests // ROUNDS)
    served: list[float] = []
    bare: dict[Spinning, list[float]] = {spinning: [] for spinning in chains}
    with console.status("Measuring") as status:
        for turn in range(1, ROUNDS + 1):
            status.update(f"Round {turn} of {ROUNDS}: ensemble")
            result = perf_analyzer.measure(category, url, images=images, concurrency=1, requests=each)
            served += result.latencies_ms
            for spinning, chain in chains.items():
                status.update(f"Round {turn} of {ROUNDS}: bare chain, threads spinning {spinning}")
                bare[spinning] += chain.latencies_ms(images, requests=each)
        status.update(f"Ensemble with {concurrency} requests in flight")
        loaded = perf_analyzer.measure(
            category,
            url,
            images=images,
            concurrency=concurrency,
            requests=requests,
        )
    ensemble = summarise(served)
    measured = {spinning: summarise(latencies) for spinning, latencies in bare.items()}
    faster = min(Spinning.ALWAYS, Spinning.NEVER, key=lambda spinning: measured[spinning].p50_ms)
    bare_chain, tuned_chain = measured[faster], measured[Spinning.DURING_RUNS]
    under_load = summarise(loaded.latencies_ms, throughput=loaded.throughput)
    return BenchResult(
        category=category,
        ensemble=ensemble,
        bare_chain=bare_chain,
        tuned_chain=tuned_chain,
        loaded=under_load,
        concurrency=concurrency,
        p50_ratio=ensemble.p50_ms / bare_chain.p50_ms,
        tuned_p50_ratio=ensemble.p50_ms / tuned_chain.p50_ms,
        throughput_ratio=under_load.throughput / bare_chain.throughput,
        threads=threads,
        bare_chain_spinning=faster,
        image_size=images.shape[1],
        perf_analyzer=perf_analyzer.version,
        machine=machine(),
    )


def summarise(latencies_ms: list[float], *, throughput: float | None = None) -> Measured:
    """Percentiles of latencies; the throughput, unless given, is that of one request after the other."""
    p50, p90, p99 = np.percentile(latencies_ms, [50, 90, 99])
    return Measured(
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        throughput=throughput or 1000 * len(latencies_ms) / sum(latencies_ms),
        requests=len(latencies_ms),
    )


def machine() -> str:
    """Processor and how many of its cores this process may use."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        lines = cpu_info.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), model)
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def benchmark_table(result: BenchResult) -> Table:
    """The result as a table."""
    table = Table(title=f"{result.category}, {result.image_size} px, batch 1, {result.machine}")
    table.add_column("")
    table.add_column("threads spin")
    for heading in ("p50 ms", "p90 ms", "p99 ms", "images/s"):
        table.add_column(heading, justify="right")
    rows = (
        ("bare ONNX Runtime chain", result.bare_chain_spinning, result.bare_chain),
        ("bare chain, tuned", Spinning.DURING_RUNS, result.tuned_chain),
        ("ensemble over gRPC", Spinning.DURING_RUNS, result.ensemble),
        (f"ensemble, {result.concurrency} in flight", Spinning.DURING_RUNS, result.loaded),
    )
    for name, spinning, measured in rows:
        figures = (measured.p50_ms, measured.p90_ms, measured.p99_ms, measured.throughput)
        table.add_row(name, spinning, *(f"{figure:.2f}" for figure in figures))
    table.caption = (
        f"ensemble / bare chain: p50 {result.p50_ratio:.2f} (tuned {result.tuned_p50_ratio:.2f}), "
        f"throughput under load {result.throughput_ratio:.2f}"
    )
    return table


def write_result(result: BenchResult, path: Path) -> None:
    """Write bench.json."""
    write_text(path, json.dumps(asdict(result), indent=2) + "\n")


def read_result(path: Path) -> BenchResult:
    """Read bench.json.

    Raises:
        ClientError: no such file, or another form.
    """
    try:
        values = json.loads(path.read_text())
        for name in ("ensemble", "bare_chain", "tuned_chain", "loaded"):
            values[name] = Measured(**values[name])
        return BenchResult(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClientError(
            f"{path} holds no benchmark ({error}); write it with `python -m client bench`."
        ) from None
