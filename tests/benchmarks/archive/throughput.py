"""Images a second of one server, by who asks: on cores of its own, and on shared ones."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from client import JudgeClient
from client.benchmark.images import load_pixels
from client.benchmark.perf_analyzer import PerfAnalyzer, image_inputs
from deploy.server import TritonServer
from model_repository.image_size import ImageSize
from tests.benchmarks.archive.commands import TIMEOUT_S, WORKERS, Archived, archive, links
from tests.benchmarks.archive.cores import Situation, on_cores, processor_s
from tests.benchmarks.releases import publish, serving
from tests.products import copy_backends, train_and_build

CATEGORY = "plate"
OPTIONS = {"steps": 4, "batch_size": 4, "sharpening": (0.0,)}  # what it says does not matter here
CONCURRENCIES = (1, 2, 4, 8, 16)
IN_FLIGHT = 4  # of each worker, as `archive` has it by itself
SHARDS = 20
BATCH = 4  # images a request of `archive`, once more


@dataclass
class Asked:
    """What one of those who ask reached; a value a turn.

    Attributes:
        rates: images a second.
        client_ms, server_ms: processor time of an image, of who asks and of the server. perf_analyzer's own is mostly
            that of writing down what it has measured, when that is done, and is left out.
    """

    rates: list[float] = field(default_factory=list)
    client_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass
class Throughput:
    """What was measured in a situation.

    Attributes:
        situation: where the server and the others ran.
        concurrency: perf_analyzer's best.
        analyzer, loop, archive: who asked.
        batched: `archive` with several images a request.
        runs: of the command.
    """

    situation: Situation
    concurrency: int
    analyzer: Asked = field(default_factory=Asked)
    loop: Asked = field(default_factory=Asked)
    archive: Asked = field(default_factory=Asked)
    batched: Asked = field(default_factory=Asked)
    runs: list[Archived] = field(default_factory=list)

    @property
    def of_server(self) -> float:
        """The median of `archive`'s rate over perf_analyzer's in the same turn."""
        pairs = zip(self.archive.rates, self.analyzer.rates, strict=True)
        return statistics.median(archived / analyzed for archived, analyzed in pairs)


class _Clients:
    """Those who ask a server, in turns."""

    def __init__(self, server: TritonServer, judge: JudgeClient, images: Path, source: Path) -> None:
        """Ask about the files in `source`, which are those in `images` under many names."""
        self._server, self._source, self._judge = server, source, judge
        self._paths = sorted(source.iterdir())
        self._inputs = image_inputs(load_pixels(images, image_size=judge.image_size))
        self._analyzer = PerfAnalyzer(None)

    def analyze(self, concurrency: int, requests: int) -> float:
        """Images a second of perf_analyzer."""
        load = self._analyzer.measure(
            CATEGORY, self._server.grpc_url, inputs=self._inputs, concurrency=concurrency, requests=requests
        )
        return load.throughput

    def loop(self) -> float:
        """Images a second of `predict`'s loop over all images."""
        began_s = time.monotonic()
        for verdict in self._judge.judge_many(self._paths, in_flight=WORKERS * IN_FLIGHT):
            _ = verdict.defects
        return len(self._paths) / (time.monotonic() - began_s)

    def turn(self, measured: Throughput) -> None:
        """Let each of them ask once more."""
        images, server = len(self._paths), self._server
        analyze: Callable[[], float] = partial(self.analyze, measured.concurrency, images)
        for asked, ask in ((measured.analyzer, analyze), (measured.loop, self.loop)):
            server_s, all_s = processor_s(server.pid), processor_s(os.getpid())
            asked.rates.append(ask())
            server_s, all_s = processor_s(server.pid) - server_s, processor_s(os.getpid()) - all_s
            asked.server_ms.append(1000 * server_s / images)
            if asked is measured.loop:  # the server was started by this process, too
                asked.client_ms.append(1000 * (all_s - server_s) / images)
        for asked, batch in ((measured.archive, 1), (measured.batched, BATCH)):
            run = archive(
                self._source,
                self._source.with_name("results.parquet"),
                category=CATEGORY,
                url=server.grpc_url,
                shard=images // SHARDS,
                server=server.pid,
                batch=batch,
            )
            measured.runs.append(run)
            asked.rates.append(run.rate)
            asked.client_ms.append(run.client_ms)
            asked.server_ms.append(run.server_ms)


def throughput_of_edge(
    work: Path, places: Sequence[Situation], *, turns: int, images: int
) -> tuple[list[Throughput], ImageSize]:
    """Train `edge` for a moment, serve it in each situation and measure; the last figure is the size of its images."""
    work.mkdir()
    train_and_build(CATEGORY, "edge", OPTIONS, work, n_train=10, n_test_good=8)
    pictures = work / "data" / CATEGORY / "test"
    source = links(sorted(pictures.rglob("*.png")), images, work / "drop")
    measured = []
    for situation in places:
        folder = work / situation.name
        with on_cores(situation.server):  # publishing, too, counts cores for threads and instances
            repository = copy_backends(folder / "models")
            publish(work / "build" / CATEGORY, repository)
            with (
                serving(repository, log=folder / "log", threads=situation.threads) as server,
                on_cores(situation.clients),
                JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
            ):
                size = judge.image_size
                clients = _Clients(server, judge, pictures, source)
                best = max(CONCURRENCIES, key=lambda each: clients.analyze(each, images // 5))
                measured.append(Throughput(situation, best))
                for _ in range(turns):
                    clients.turn(measured[-1])
    return measured, size
