"""Measure what an archive takes, in images a second and memory, and write the page."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from client.benchmark.bars import Bar
from tests.benchmarks.archive.commands import Archived, archive, links
from tests.benchmarks.archive.cores import situations
from tests.benchmarks.archive.pages import PAGE, page
from tests.benchmarks.archive.throughput import Throughput, throughput_of_edge
from tests.benchmarks.many_releases import make_build
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, run, write_results
from tests.products import copy_backends

LEAST_OF_SERVER, MOST_GROWTH = 0.9, 1.1


def main() -> None:
    """Measure both parts, print a line each, and write the page."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    places = situations(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        measured, size = throughput_of_edge(work / "edge", places, turns=asked.turns, images=asked.images)
        memory = memory_of_tiny(work / "tiny", asked.counts)
    bars = bars_of(measured, memory)
    for bar in bars:
        console.print(str(bar))
    PAGE.write_text(page(measured, memory, bars, size=size), encoding="utf-8")
    results = {
        "throughput": [_as_json(each) for each in measured],
        "memory": [asdict(run) for run in memory],
    }
    write_results(asked.json, results, bars)


def bars_of(measured: Sequence[Throughput], memory: Sequence[Archived]) -> list[Bar]:
    """What is asked of an archive: a rate where the server has cores of its own, and memory."""
    of_server = {each.situation.name: each.of_server for each in measured}
    rate = "images/s of archive / perf_analyzer's at its best concurrency"
    growth = f"memory with {memory[-1].images:,} images / with {memory[0].images:,}"
    return [
        Bar(f"{rate}, the server on cores of its own", of_server["apart"], LEAST_OF_SERVER, False),
        Bar(f"{rate}, all on the same cores", of_server["shared"], None, False),
        Bar(f"{rate}, all on the same cores, a thread a backbone", of_server["one-thread"], None, False),
        Bar(growth, memory[-1].peak_mib / memory[0].peak_mib, MOST_GROWTH, True),
    ]


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
                server=server.pid,
                memory=True,
            )
            for count in counts
        ]


def _as_json(measured: Throughput) -> dict[str, object]:
    situation = measured.situation
    return asdict(measured) | {
        "situation": asdict(situation) | {"server": [*situation.server], "clients": [*situation.clients]}
    }


def parse_arguments() -> argparse.Namespace:
    """How much is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="of the three that ask, in each situation")
    parser.add_argument("--images", type=int, default=2000, help="of a turn")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], help="images of the memory's runs"
    )
    parser.add_argument("--json", type=Path, default=FOLDER / "archive.json", help="gets the results")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
