"""What do 200 releases of 20 categories cost, beside one release of each? `make bench-all WHAT=releases`.

A tiny category is trained, 64 px, and copied. Of a category's releases two have students of their own, and the others
are thresholds of the first one, which is live. Commands, with Python's start, and the server until every model is ready
are timed in seconds that pass and in seconds of a core. Memory is the proportional set size (PSS).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import psutil
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from export.builds.up_to_date import build_category
from export.product import ProductPaths
from export.releases.publish import Circumstances, publish_category
from export.releases.store import Store
from export.releases.verbs.retune import Retuning, retune
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.probes import make_probes
from tests.benchmarks.categories import memory_by_model
from tests.benchmarks.releases import MAX_BATCH_SIZE, serving
from tests.benchmarks.results import FOLDER, run, write_results
from tests.conftest import TINY_OPTIONS
from tests.products import copy_as, copy_backends
from train.data.category import read_category
from train.data.sources.synthetic.dataset import render_category
from train.runs import fit_category
from train.support.devices import Runtime

COMMANDS = ("releases", "check")
MOST_S = 2.0
MOST_OF_ONE_EACH = 1.1  # start-up and memory of the server
PROBED = Circumstances(probes=make_probes)
ASIDE = Circumstances(probes=make_probes, live=False)


@dataclass
class Measured:
    """Of one repository; each list has a value a turn.

    Attributes:
        releases: how many it holds.
        seconds: that passed, by command.
        core_seconds: of a core, by command.
        start_s: of the server.
        start_core_s: of a core, of the server and all stubs until it is ready.
        memory_mib: of the server and all stubs once it is ready.
    """

    releases: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COMMANDS})
    core_seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COMMANDS})
    start_s: list[float] = field(default_factory=list)
    start_core_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)


def make_build(work: Path) -> Path:
    """A build of two of timm's smallest networks."""
    root = render_category(
        work / "data", category="part", image_size=64, n_train=16, n_test_good=4, n_per_defect=1
    )
    data = read_category(root, dataset="synthetic", category="part")
    fit_category(
        data,
        preset="edge",
        overrides=TINY_OPTIONS,
        run_dir=work / "runs" / "part",
        runtime=Runtime("cpu"),
    )
    product = ProductPaths("part", work / "runs", work / "build")
    build_category(product)
    return product.build


def publish(build: Path, repository: Path, circumstances: Circumstances) -> None:
    """Publish as the command does."""
    publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
        circumstances=circumstances,
    )


def make_repositories(build: Path, work: Path, *, categories: int, releases: int) -> tuple[Path, Path]:
    """A repository with one release of each category, and one with that and the others."""
    one_each = copy_backends(work / "one_each")
    names = [f"part_{number}" for number in range(1, categories + 1)]
    for name in names:
        publish(copy_as(build, work / "first" / name), one_each, PROBED)
    many = work / "many"
    shutil.copytree(one_each, many)
    for serial, name in enumerate(names, start=1):
        publish(copy_as(build, work / "second" / name, weights_id=serial), many, ASIDE)
        for number in range(releases - 2):
            retune(many, name, Retuning(threshold=2.0 + number), url=None)
    return one_each, many


def time_command(command: str, repository: Path, measured: Measured) -> None:
    """Run a command of `deploy` once more."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deploy", command, "--repository", str(repository)],
        check=True,
        capture_output=True,
    )
    measured.seconds[command].append(perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured.core_seconds[command].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def core_seconds_of(pid: int) -> float:
    """Seconds of a core that a server and its stubs have taken so far."""
    server = psutil.Process(pid)
    taken = 0.0
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            taken += times.user + times.system
    return taken


def measure(repositories: Sequence[Path], *, turns: int, starts: int, log: Path) -> list[Measured]:
    """Time the commands and the server's start of each repository, in turns."""
    measured = []
    for repository in repositories:
        store = Store(repository)
        measured.append(Measured(sum(len(store.numbers(name)) for name in store.categories())))
    for _ in range(turns):
        for repository, each in zip(repositories, measured, strict=True):
            for command in COMMANDS:
                time_command(command, repository, each)
    for _ in range(starts):
        for repository, each in zip(repositories, measured, strict=True):
            with serving(repository, log=log) as server:
                each.start_s.append(server.ready_s)
                each.start_core_s.append(core_seconds_of(server.pid))
                each.memory_mib.append(sum(memory_by_model(server.pid).values()))
    return measured


def bars_of(measured: Sequence[Measured]) -> list[Bar]:
    """What many releases may cost."""
    one_each, many = measured
    bars = [
        Bar(
            f"`{name}` of {many.releases} releases, seconds",
            statistics.median(many.seconds[name]),
            MOST_S,
            True,
        )
        for name in COMMANDS
    ]
    for what in ("start_core_s", "memory_mib"):
        ratio = statistics.median(getattr(many, what)) / statistics.median(getattr(one_each, what))
        bars.append(
            Bar(
                f"{what} with {many.releases} releases / with {one_each.releases}",
                ratio,
                MOST_OF_ONE_EACH,
                True,
            )
        )
    return bars


def table_of(measured: Sequence[Measured], categories: int) -> Table:
    """One line a repository, medians."""
    table = Table(title=f"{categories} categories over one teacher, tiny networks")
    for heading in ("releases", *(f"{name} {unit}" for name in COMMANDS for unit in ("s", "core s")), "start s",
                    "start core s", "memory MiB"):  # fmt: skip
        table.add_column(heading, justify="right")
    for each in measured:
        times = [
            statistics.median(taken[name]) for name in COMMANDS for taken in (each.seconds, each.core_seconds)
        ]
        table.add_row(
            str(each.releases),
            *(f"{seconds:.2f}" for seconds in times),
            f"{statistics.median(each.start_s):.1f}",
            f"{statistics.median(each.start_core_s):.1f}",
            f"{statistics.median(each.memory_mib):.0f}",
        )
    return table


def parse_arguments() -> argparse.Namespace:
    """How many releases, and how often each is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--categories", type=int, default=20, help="over one teacher")
    parser.add_argument("--releases", type=int, default=10, help="of each category, at least 2")
    parser.add_argument("--turns", type=int, default=5, help="of each command")
    parser.add_argument("--starts", type=int, default=2, help="of each server")
    parser.add_argument("--json", type=Path, default=FOLDER / "releases.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Make both repositories, measure them and print a table."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build = make_build(work)
        repositories = make_repositories(build, work, categories=asked.categories, releases=asked.releases)
        log = work / "tritonserver.log"
        measured = measure(repositories, turns=asked.turns, starts=asked.starts, log=log)
    console.print(table_of(measured, asked.categories))
    bars = bars_of(measured)
    for bar in bars:
        console.print(str(bar))
    write_results(asked.json, {"measured": [asdict(each) for each in measured]}, bars)


if __name__ == "__main__":
    run(main)
