"""How soon does a release answer after `promote`, `rollback` and `retune`? `make bench-all WHAT=switching`.

Two releases of one build's networks, served by the real server. A client asks all the time, one image after the other.
A switch is timed from the start of the command, Python's included, to the first answer that names the new release.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from client import JudgeClient
from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from export.manifest import read_manifest
from export.releases.store import Store
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import copy_as, copy_backends

MOST_S = {"promote": 2.0, "rollback": 2.0, "retune": 1.0}
TIMEOUT_S = 60


@dataclass
class Answers:
    """When each release answered first since it was last forgotten, by its id; and what failed."""

    first: dict[int, float] = field(default_factory=dict)
    count: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def asking(url: str, category: str, image: np.ndarray) -> Iterator[Answers]:
    """A client that asks about one image again and again within the block."""
    answers, stop = Answers(), threading.Event()

    def ask() -> None:
        with JudgeClient(url, category=category, timeout_s=TIMEOUT_S) as judge:
            while not stop.is_set():
                try:
                    verdict = judge.judge(image)
                except Exception as error:  # counted, whatever it is
                    answers.failures.append(str(error))
                    continue
                answers.first.setdefault(verdict.release_id, perf_counter())
                answers.count += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def time_switch(repository: Path, category: str, arguments: list[str], answers: Answers) -> float:
    """Seconds from the start of a command of `deploy` to the first answer of the release that it makes live."""
    answers.first.clear()
    before, started = live_id(repository, category), perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "deploy", *arguments),
            *("--category", category, "--repository", str(repository)),
        ],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    after = live_id(repository, category)
    assert after != before
    while after not in answers.first:
        if perf_counter() - started > TIMEOUT_S:
            raise TimeoutError(f"release id {after} gave no answer in {TIMEOUT_S} s")
        threading.Event().wait(0.001)
    return answers.first[after] - started


def live_id(repository: Path, category: str) -> int:
    """The release id of what is live."""
    store = Store(repository)
    live = store.live(category)
    assert live is not None
    return store.read(category, live.number).release_id


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is switched."""
    parser = build_parser(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="of promote, rollback and retune each")
    parser.add_argument("--json", type=Path, default=FOLDER / "switching.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Switch some times and print a table."""
    asked = parse_arguments()
    console = Console(width=100, highlight=False)
    manifest = read_manifest(asked.build)
    category = manifest.category
    image = load_pixels(
        asked.images, image_size=manifest.config.image_size, bit_depth=manifest.provenance.bit_depth
    )[0]
    taken: dict[str, list[float]] = {verb: [] for verb in MOST_S}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        repository = copy_backends(work / "model_repository")
        publish(asked.build, repository)
        publish(copy_as(asked.build, work / "second" / category, weights_id=1), repository)
        log = work / "tritonserver.log"
        with serving(repository, log=log) as server, asking(server.grpc_url, category, image) as answers:
            for turn in range(asked.turns):
                for verb, arguments in (
                    ("rollback" if turn else "promote", ["rollback"] if turn else ["promote", "1"]),
                    ("promote", ["promote", "2" if turn % 2 == 0 else "1"]),
                    ("retune", ["retune", "--threshold", str(1.5 + turn)]),
                ):
                    taken[verb].append(time_switch(repository, category, arguments, answers))
                    console.print(f"turn {turn + 1}: {verb} {taken[verb][-1]:.2f} s")
    report(console, taken, answers, asked.json)


def report(console: Console, taken: dict[str, list[float]], answers: Answers, path: Path) -> None:
    """Print the medians, and write all figures."""
    table = Table(title=f"{answers.count} answers meanwhile, {len(answers.failures)} requests failed")
    for heading in ("verb", "times", "median s", "longest s"):
        table.add_column(heading, justify="left" if heading == "verb" else "right")
    for verb, seconds in taken.items():
        table.add_row(verb, str(len(seconds)), f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}")
    console.print(table)
    bars = [
        Bar(
            name=f"{verb}, seconds to the first answer",
            value=statistics.median(taken[verb]),
            limit=most,
            at_most=True,
        )
        for verb, most in MOST_S.items()
    ]
    bars.append(Bar(name="failed requests", value=len(answers.failures), limit=0, at_most=True))
    for bar in bars:
        console.print(str(bar))
    write_results(path, {"seconds": taken, "answers": answers.count, "failures": answers.failures}, bars)


if __name__ == "__main__":
    run(main)
