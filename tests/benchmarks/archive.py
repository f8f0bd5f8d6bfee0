"""Does `archive` keep a server busy, and stay small from 1,000 to 100,000 images? `make bench-all WHAT=archive`.

Throughput: `edge`, trained for four steps, asked by perf_analyzer at its best concurrency, by `predict`'s own loop and
by `archive` with two workers, in turns. The rate of `archive` is that from when each worker has given back a shard to
the last one, so that Ray's start is told apart. Memory: a tiny category, 64 px; the proportional set size (PSS) of the
command and all that it has started.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from rich.console import Console

from client import JudgeClient
from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from client.benchmark.machine import this_machine
from client.benchmark.perf_analyzer import PerfAnalyzer, image_inputs
from deploy.server import TritonServer
from model_repository.image_size import ImageSize, size_text
from tests.benchmarks.categories import pss_mib
from tests.benchmarks.many_releases import make_build
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, run, write_results
from tests.products import ROOT, copy_backends, train_and_build

PAGE = Path("docs/measurements/archive.md")
LEAST_OF_SERVER, MOST_GROWTH = 0.9, 1.1
WORKERS = 2
OPTIONS = {"steps": 4, "batch_size": 4, "sharpening": (0.0,)}  # what it says does not matter here
CONCURRENCIES = (1, 2, 4, 8, 16)
TIMEOUT_S = 60
LOOK_S, MEMORY_S = 0.02, 2.0
HEAD = """# An archive

{date}, the embedded server, {machine}. `make bench-all WHAT=archive`.

## Throughput

`edge`, {size} px, images of 160 x 160 px; medians of {turns} turns. Server, client and Ray share the cores.

| asked by | images/s | of the server's |
|---|---|---|
"""


@dataclass
class Archived:
    """One run of `archive`.

    Attributes:
        images: that it judged.
        seconds: of the whole command.
        rate: images a second, without the start.
        memory_mib: of the command and all that it has started, every MEMORY_S.
    """

    images: int
    seconds: float = 0.0
    rate: float = 0.0
    memory_mib: list[float] = field(default_factory=list)

    @property
    def peak_mib(self) -> float:
        """The most memory at any time."""
        return max(self.memory_mib)


def archive(source: Path, results: Path, *, category: str, url: str, shard: int) -> Archived:
    """Run the command on a folder, and look at it from outside."""
    count = sum(1 for _ in source.iterdir())
    archived, arrivals = Archived(count), list[float]()
    parts = results.with_name(results.name + ".parts")
    command = [
        sys.executable, "-m", "client", "archive", source, "--to", results, "--category", category, "--url", url,
        "--workers", WORKERS, "--shard", shard, "--timeout-s", TIMEOUT_S,
    ]  # fmt: skip
    began_s = time.monotonic()
    with (
        subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL) as process,
        looking(process.pid, parts, archived, arrivals),
    ):
        exit_code = process.wait()
    archived.seconds = time.monotonic() - began_s
    if exit_code not in (0, 1) or pq.read_metadata(results).num_rows != count:
        raise RuntimeError(f"archive ended with {exit_code}, or without a row for each image")
    if len(arrivals) > WORKERS:
        rest = count - WORKERS * shard
        archived.rate = rest / (arrivals[-1] - arrivals[WORKERS - 1])
    results.unlink()
    return archived


@contextmanager
def looking(pid: int, parts: Path, archived: Archived, arrivals: list[float]) -> Iterator[None]:
    """Note when parts come, and the memory."""
    stop = threading.Event()

    def look() -> None:
        next_s = 0.0
        while not stop.wait(LOOK_S):
            with suppress(FileNotFoundError):
                there = sum(not entry.name.startswith(".") for entry in os.scandir(parts))
                arrivals.extend([time.monotonic()] * (there - len(arrivals)))
            if time.monotonic() > next_s:
                archived.memory_mib.append(memory_of(pid))
                next_s = time.monotonic() + MEMORY_S

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def memory_of(pid: int) -> float:
    """PSS of a process and all that it has started, MiB."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError, StopIteration):
                total += pss_mib(each.pid)
    return total


def links(files: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder of so many images, which are few files under many names."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(files[number % len(files)], folder / f"{number:06}.png")
    return folder


def measure_throughput(
    server: TritonServer, category: str, files: Sequence[Path], work: Path, *, turns: int, images: int
) -> tuple[dict[str, list[float]], list[Archived], int]:
    """Images a second by who asks, in turns."""
    source = links(files, images, work / "drop")
    analyzer = PerfAnalyzer(None)
    rates: dict[str, list[float]] = {"perf_analyzer": [], "`predict`'s loop": [], "`archive`": []}
    runs = []
    with JudgeClient(server.grpc_url, category=category, timeout_s=TIMEOUT_S) as judge:
        inputs = image_inputs(load_pixels(source, image_size=judge.image_size))

        def analyze(concurrency: int, requests: int) -> float:
            load = analyzer.measure(
                category, server.grpc_url, inputs=inputs, concurrency=concurrency, requests=requests
            )
            return load.throughput

        best = max(CONCURRENCIES, key=lambda each: analyze(each, images // 5))
        paths = sorted(source.iterdir())
        for _ in range(turns):
            rates["perf_analyzer"].append(analyze(best, images))
            began_s = time.monotonic()
            for verdict in judge.judge_many(paths, in_flight=WORKERS * 4):
                _ = verdict.defects
            rates["`predict`'s loop"].append(images / (time.monotonic() - began_s))
            run = archive(
                source, work / "results.parquet", category=category, url=server.grpc_url, shard=images // 20
            )
            rates["`archive`"].append(run.rate)
            runs.append(run)
    return rates, runs, best


def main() -> None:
    """Measure both parts, print a line each, and write the page."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rates, runs, best, size = throughput_of_edge(work / "edge", turns=asked.turns, images=asked.images)
        memory = memory_of_tiny(work / "tiny", asked.counts)
    of_server = statistics.median(
        archived / analyzed
        for archived, analyzed in zip(rates["`archive`"], rates["perf_analyzer"], strict=True)
    )
    growth = memory[-1].peak_mib / memory[0].peak_mib
    bars = [
        Bar(
            "images/s of archive / perf_analyzer's at its best concurrency", of_server, LEAST_OF_SERVER, False
        ),
        Bar(
            f"memory with {memory[-1].images:,} images / with {memory[0].images:,}", growth, MOST_GROWTH, True
        ),
    ]
    for bar in bars:
        console.print(str(bar))
    write_page(rates, runs, memory, best=best, size=size)
    results = {
        "rates": rates,
        "runs": [asdict(run) for run in runs],
        "memory": [asdict(run) for run in memory],
    }
    write_results(asked.json, results, bars)


def throughput_of_edge(
    work: Path, *, turns: int, images: int
) -> tuple[dict[str, list[float]], list[Archived], int, ImageSize]:
    """Train `edge` for a moment, serve it and measure; the last figure is the size of its images."""
    work.mkdir()
    train_and_build("plate", "edge", OPTIONS, work, n_train=10, n_test_good=8)
    repository = copy_backends(work / "models")
    publish(work / "build" / "plate", repository)
    files = sorted((work / "data" / "plate" / "test").rglob("*.png"))
    with serving(repository, log=work / "log") as server:
        measured = measure_throughput(server, "plate", files, work, turns=turns, images=images)
        with JudgeClient(server.grpc_url, category="plate", timeout_s=TIMEOUT_S) as judge:
            return *measured, judge.image_size


def memory_of_tiny(work: Path, counts: Sequence[int]) -> list[Archived]:
    """Archive so many images, through a server with networks of a few MB."""
    work.mkdir()
    build = make_build(work)
    repository = copy_backends(work / "models")
    publish(build, repository)
    files = sorted((work / "data").rglob("test/*/*.png"))
    with serving(repository, log=work / "log") as server:
        return [
            archive(
                links(files, count, work / f"drop_{count}"),
                work / "results.parquet",
                category="part",
                url=server.grpc_url,
                shard=min(1000, count // 5),
            )
            for count in counts
        ]


def write_page(
    rates: dict[str, list[float]], runs: list[Archived], memory: list[Archived], *, best: int, size: ImageSize
) -> None:
    """The tables for people."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    analyzed = medians["perf_analyzer"]
    names = {
        "perf_analyzer": f"perf_analyzer, {best} in flight: pixels, nothing read or decoded",
        "`predict`'s loop": "`predict`'s loop, one process: files decoded, defects found",
        "`archive`": f"`archive`, {WORKERS} workers: the same, and rows written",
    }
    head = HEAD.format(
        date=datetime.now(UTC).date(), machine=this_machine(), turns=len(runs), size=size_text(size)
    )
    lines = [f"| {names[name]} | {rate:.1f} | {rate / analyzed:.2f} |" for name, rate in medians.items()]
    start_s = statistics.median(run.seconds - run.images / run.rate for run in runs)
    text = f"""
Ray's start and end take {start_s:.0f} s more, whatever the number of images.

## Memory

A tiny category, 64 px. Of the command and all that it starts, Ray too: proportional set size, MiB.

| images | peak | at the end | images/s |
|---|---|---|---|
"""
    rows = [
        f"| {run.images:,} | {run.peak_mib:.0f} | {statistics.median(run.memory_mib[-5:]):.0f} | {run.rate:.0f} |"
        for run in memory
    ]
    PAGE.write_text(head + "\n".join(lines) + "\n" + text + "\n".join(rows) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """How much is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="of the three that ask")
    parser.add_argument("--images", type=int, default=2000, help="of a turn")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], help="images of the memory's runs"
    )
    parser.add_argument("--json", type=Path, default=FOLDER / "archive.json", help="gets the results")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
