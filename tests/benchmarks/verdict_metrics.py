"""What the metrics of verdicts cost: `make bench-all WHAT=verdict-metrics`.

Two servers over the same release run side by side; in one of them the fusion keeps no metrics. They are asked in turns,
one request after the other, so that whatever else the machine does falls on both. The other's fusion takes the time of
each verdict: to put it down, which the request waits for, and to hand it on, stub and server together, beside requests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from deploy.server import TritonServer
from export.manifest import read_manifest
from model_repository.grpc_channel import connect
from tests.benchmarks.load import Pixels
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import copy_backends

REQUESTS = 50  # of each server in a turn, after a few that are not counted
FIRST = 5
SETTLE_S = 0.05  # in which what waits is handed on
MOST_SHARE = 0.01
TIMEOUT_S = 60
RESAMPLES = 2000
TIMED = """

from time import perf_counter

class VerdictMetrics(VerdictMetrics):
    def __init__(self, utils):
        self.taken = {"note": [], "count": []}
        super().__init__(utils)

    def note(self, judged):
        started = perf_counter()
        super().note(judged)
        self.taken["note"].append(perf_counter() - started)

    def _count(self):
        n_images, started = sum(map(len, self._waiting)), perf_counter()
        super()._count()
        if n_images:
            self.taken["count"].append((perf_counter() - started) / n_images)

    def close(self):
        super().close()
        if self.taken["note"]:
            path = own_repository() / f"taken-{id(self)}.json"
            path.write_text(json.dumps(self.taken), encoding="utf-8")
"""
WITHOUT = """

class VerdictMetrics(VerdictMetrics):
    def __init__(self, utils):
        raise RuntimeError("this server is to keep none")
"""


@dataclass(frozen=True)
class Turn:
    """Requests to one server.

    Attributes:
        latency_ms: the median of the requests, milliseconds.
        cpu_ms: what the server and its steps computed for each of them, milliseconds of one core.
    """

    latency_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Share:
    """How much more a request takes with metrics, in parts of one without: the median of the turns, and where it lies.

    Attributes:
        low, high: 95 % of the medians of turns drawn anew lie between them.
    """

    median: float
    low: float
    high: float


def share_of(with_metrics: list[float], without: list[float]) -> Share:
    """Turns in pairs, each server's in the same order."""
    shares = np.array(with_metrics) / np.array(without) - 1
    drawn = np.random.default_rng(0).choice(shares, (RESAMPLES, len(shares)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975)).tolist()
    return Share(float(np.median(shares)), low, high)


def repositories(build: Path, folder: Path) -> dict[str, Path]:
    """The release twice: with a fusion that takes the time of its metrics, and with one that keeps none."""
    made = {}
    for name, added in (("with metrics", TIMED), ("without", WITHOUT)):
        made[name] = copy_backends(folder / name.replace(" ", "_"))
        publish(build, made[name])
        # The committed version, and the one that publishing makes of it.
        for code in made[name].glob("distance_fusion/[0-9]*/verdict_metrics.py"):
            code.write_text(code.read_text(encoding="utf-8") + added, encoding="utf-8")
    return made


def times_ms(repository: Path) -> dict[str, float]:
    """Medians: of putting a verdict down, and of handing on, for each of those that came together."""
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in repository.glob("taken-*.json")]
    return {
        name: 1000 * statistics.median([value for part in parts for value in part[name]])
        for name in ("note", "count")
    }


def cpu_s(server: TritonServer) -> float:
    """Seconds that the server and its steps have computed."""
    process = psutil.Process(server.pid)
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def asking(server: TritonServer, category: str, images: Pixels, stack: ExitStack) -> Callable[[], Turn]:
    """What runs a turn of requests, over one connection."""
    client = stack.enter_context(connect(server.grpc_url))
    tensors = []
    for image in images:
        tensor = grpcclient.InferInput("image", [1, *image.shape], "UINT8")
        tensors.append(tensor.set_data_from_numpy(image[None]))

    def ask(number: int) -> float:
        started = perf_counter()
        client.infer(category, [tensors[number % len(tensors)]], client_timeout=TIMEOUT_S)
        return 1000 * (perf_counter() - started)

    def turn() -> Turn:
        for number in range(FIRST):
            ask(number)
        time.sleep(SETTLE_S)
        before_s = cpu_s(server)
        latencies = [ask(number) for number in range(REQUESTS)]
        time.sleep(SETTLE_S)
        return Turn(statistics.median(latencies), 1000 * (cpu_s(server) - before_s) / REQUESTS)

    return turn


def measure(
    build: Path, category: str, images: Pixels, turns: int, folder: Path
) -> tuple[dict[str, list[Turn]], dict[str, float]]:
    """Turns of both servers, who begins changes from one to the next; and the times of `times_ms`."""
    made = repositories(build, folder)
    with ExitStack() as stack:
        contenders = {
            contender: asking(
                stack.enter_context(serving(repository, log=folder / f"{repository.name}.log")),
                category,
                images,
                stack,
            )
            for contender, repository in made.items()
        }
        taken: dict[str, list[Turn]] = {contender: [] for contender in contenders}
        for number in range(-1, turns):  # the first is not counted
            order = [*contenders] if number % 2 else [*contenders][::-1]
            for contender in order:
                turn = contenders[contender]()
                if number >= 0:
                    taken[contender].append(turn)
        said = (folder / "without.log").read_text(encoding="utf-8")
        assert "Verdicts are not among the metrics" in said
    return taken, times_ms(made["with metrics"])


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is asked."""
    parser = build_parser(__doc__)
    parser.add_argument("--turns", type=int, default=40, help=f"of {REQUESTS} requests to each server")
    parser.add_argument("--json", type=Path, default=FOLDER / "verdict_metrics.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Ask both servers and print what a request takes of each."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    size = manifest.config.image_size
    images = load_pixels(asked.images, image_size=size, bit_depth=manifest.provenance.bit_depth)
    with console.status("Asking two servers in turns"), tempfile.TemporaryDirectory() as folder:
        taken, times = measure(asked.build, manifest.category, images, asked.turns, Path(folder))
    table = Table(title=f"{manifest.category}, {size} px, one request in flight, {asked.turns} turns")
    for heading in ("a request takes", *taken, "more", "95 % of resampled medians"):
        table.add_column(heading, justify="right" if heading != "a request takes" else "left")
    shares = {}
    for what in ("latency_ms", "cpu_ms"):
        values = {contender: [getattr(turn, what) for turn in turns] for contender, turns in taken.items()}
        shares[what] = share = share_of(values["with metrics"], values["without"])
        table.add_row(
            what,
            *(f"{statistics.median(each):.2f}" for each in values.values()),
            f"{share.median:+.2%}",
            f"{share.low:+.2%} to {share.high:+.2%}",
        )
    console.print(table)
    console.print(
        f"A verdict is put down in {times['note']:.4f} ms, and handed on in {times['count']:.4f} ms."
    )
    cpu_ms = statistics.median(turn.cpu_ms for turn in taken["without"])
    value = sum(times.values()) / cpu_ms
    bars = [
        Bar(name="both, in parts of what a request computes", value=value, limit=MOST_SHARE, at_most=True)
    ]
    for bar in bars:
        console.print(str(bar))
    results = {
        "category": manifest.category,
        "times_ms": times,
        "turns": {contender: [asdict(turn) for turn in each] for contender, each in taken.items()},
        "shares": {what: asdict(share) for what, share in shares.items()},
    }
    write_results(asked.json, results, bars)


if __name__ == "__main__":
    run(main)
