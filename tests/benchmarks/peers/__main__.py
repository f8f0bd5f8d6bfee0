"""The ensemble beside torch in FastAPI and pytriton's `@batch`, in turns: `make bench-all WHAT=peers`.

All have the same network and judge the same images. Each is asked with 1, 2, 4 and 8 requests in flight, each sent when
an earlier one is answered; what counts is its best throughput. While one is measured the others are stopped.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from client.benchmark.measured import Load, summarise
from client.benchmark.perf_analyzer import PerfAnalyzer
from client.benchmark.tables import milliseconds
from client.core.errors import BenchmarkError
from model_repository.image_size import square_side
from tests.benchmarks.load import Pixels
from tests.benchmarks.peers.contenders import (
    Contender,
    all_paused_but,
    ensemble,
    fastapi,
    pytriton,
)
from tests.benchmarks.results import FOLDER, run, write_results
from train.checkpoint.tensors import load_checkpoint

IN_FLIGHT = (1, 2, 4, 8)
WARM_UP_REQUESTS = 20
LEAST_RATIO = 1.3
MAX_MAP_DIFFERENCE = 1e-3
Loads = dict[int, list[Load]]  # by requests in flight, one a round


def require_same_maps(contenders: list[Contender], images: Pixels) -> float:
    """The largest difference of their maps of one image.

    Raises:
        BenchmarkError: it is so large that they cannot have the same network.
    """
    maps = [contender.ask(images[0]) for contender in contenders]
    largest = max(float(np.abs(other - maps[0]).max()) for other in maps)
    if largest > MAX_MAP_DIFFERENCE:
        raise BenchmarkError(
            f"The servers' maps of one image differ by {largest:.2g}; expected at most {MAX_MAP_DIFFERENCE:g}: build "
            "and checkpoint are of different releases; export again."
        )
    return largest


def measure_in_turns(
    contenders: list[Contender], images: Pixels, *, requests: int, rounds: int, console: Console
) -> dict[str, Loads]:
    """All contenders at every number of requests in flight, in each round."""
    loads: dict[str, Loads] = {
        contender.name: {in_flight: [] for in_flight in IN_FLIGHT} for contender in contenders
    }
    for turn in range(1, rounds + 1):
        for contender in contenders:
            with (
                console.status(f"Round {turn} of {rounds}: {contender.name}"),
                all_paused_but(contender, contenders),
            ):
                contender.load(images, concurrency=2, requests=WARM_UP_REQUESTS)
                for in_flight in IN_FLIGHT:
                    load = contender.load(images, concurrency=in_flight, requests=requests)
                    loads[contender.name][in_flight].append(load)
    return loads


def best_of(measured: Loads) -> dict[str, Any]:
    """A contender's best: median throughput over the rounds, percentiles of all its requests."""
    throughput = {n: statistics.median(load.throughput for load in loads) for n, loads in measured.items()}
    best = max(throughput, key=lambda in_flight: throughput[in_flight])
    loaded = summarise(measured[best])
    alone = summarise(measured[1])
    return {
        "throughput": throughput[best],
        "in_flight": best,
        "p50_ms": loaded.p50_ms,
        "p99_ms": loaded.p99_ms,
        "p50_ms_1_in_flight": alone.p50_ms,
        "throughput_by_in_flight": throughput,
        "throughput_of_each_round": {n: [load.throughput for load in loads] for n, loads in measured.items()},
    }


def table_of(results: dict[str, dict[str, Any]], title: str) -> Table:
    """One line a contender."""
    table = Table(title=title)
    headings = ("", "best in flight", "images/s", "p50 ms", "p99 ms", "p50 ms, 1 in flight", "ours is")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    ours = next(iter(results.values()))
    for name, best in results.items():
        times = ours["throughput"] / best["throughput"]
        table.add_row(
            name,
            str(best["in_flight"]),
            f"{best['throughput']:.1f}",
            f"{best['p50_ms']:.1f}",
            milliseconds(best["p99_ms"]),
            f"{best['p50_ms_1_in_flight']:.1f}",
            "" if best is ours else f"{times:.2f} times",
        )
    return table


def bars_of(results: dict[str, dict[str, Any]]) -> list[Bar]:
    """The first contender, ours, against each of the others."""
    ours, *others = results
    return [
        Bar(
            name=f"throughput of that of {name}",
            value=results[ours]["throughput"] / results[name]["throughput"],
            limit=LEAST_RATIO,
            at_most=False,
        )
        for name in others
    ]


def parse_arguments() -> argparse.Namespace:
    """What is compared, and how long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--category", default="pill", help="trained and exported product")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="holds <category>/checkpoint")
    parser.add_argument("--build-dir", type=Path, default=Path("build"), help="holds <category>/teacher.onnx")
    parser.add_argument("--images", type=Path, required=True, help="folder of images to send")
    parser.add_argument("--requests", type=int, default=200, help="a round, of each number in flight")
    parser.add_argument("--rounds", type=int, default=3, help="times each has its turn")
    parser.add_argument("--json", type=Path, default=FOLDER / "peers.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Start all three, measure them in turns and print one table."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    checkpoint = asked.runs_dir / asked.category / "checkpoint.safetensors"
    build = asked.build_dir / asked.category
    size = square_side(load_checkpoint(checkpoint).config.image_size)
    images = load_pixels(asked.images, image_size=size)
    binary = PerfAnalyzer(None)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        work = Path(folder)
        contenders = [
            servers.enter_context(starting)
            for starting in (
                ensemble(build, asked.category, work, binary),
                fastapi(checkpoint),
                pytriton(build, asked.category, work, binary),
            )
        ]
        difference = require_same_maps(contenders, images)
        measured = measure_in_turns(
            contenders, images, requests=asked.requests, rounds=asked.rounds, console=console
        )
    results = {name: best_of(loads) for name, loads in measured.items()}
    bars = bars_of(results)
    console.print(
        table_of(results, f"{asked.category}, {size} px, {asked.requests * asked.rounds} requests each")
    )
    console.print(f"The largest difference of their maps of one image is {difference:.1e}.")
    for bar in bars:
        console.print(str(bar))
    settings = {"category": asked.category, "image_size": size, "perf_analyzer": binary.version}
    write_results(asked.json, {**settings, "map_difference": difference, "contenders": results}, bars)


if __name__ == "__main__":
    run(main)
