"""What is measured in turns: the ensembles through perf_analyzer, the bare chain and the decoding in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from client.benchmark.chain import BareChain
from client.benchmark.images import as_jpeg
from client.benchmark.measured import Measured, summarise
from client.benchmark.perf_analyzer import PerfAnalyzer, encoded_inputs, image_inputs
from client.benchmark.statistics import ServerStatistics, StepTimes, between, pooled
from client.judging.category import ENCODED
from client.judging.connection import JudgeClient
from model_repository.image_decoder.image_decoding import decode_image, resize_image

WARM_UP_RUNS = 3


@dataclass
class Run:
    """Measurements of one kind, pooled when all are there."""

    batch: int = 1
    concurrency: int = 1
    latencies_ms: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    steps: list[tuple[StepTimes, ...]] = field(default_factory=list)

    def add(self, latencies_ms: list[float], *, throughput: float, steps: tuple[StepTimes, ...] = ()) -> None:
        """Another round."""
        images = self.batch * len(latencies_ms)
        self.latencies_ms += latencies_ms
        self.images += images
        self.seconds += images / throughput
        self.steps.append(steps)

    def measured(self) -> Measured:
        """All rounds together."""
        return summarise(
            self.latencies_ms,
            batch=self.batch,
            concurrency=self.concurrency,
            throughput=self.images / self.seconds,
            steps=pooled(self.steps),
        )


Measure = Callable[[Run, int], None]  # adds a round of so many requests


class Bench:
    """A category on a server, the images to send, and a binary that sends them."""

    def __init__(
        self,
        judge: JudgeClient,
        client: grpcclient.InferenceServerClient,
        analyzer: PerfAnalyzer,
        *,
        images: NDArray[np.uint8],
        build: Path,
    ) -> None:
        """Encode the images as pixels and as JPEG files, and look up the steps of both ensembles.

        Args:
            judge: the category.
            client: the same server.
            analyzer: the binary.
            images: [N, S, S, 3] uint8 real images.
            build: folder with teacher.onnx and student.onnx, the very files that are served.
        """
        self.judge, self.analyzer, self.images = judge, analyzer, images
        self.files = [as_jpeg(image) for image in images]
        self._inputs = {judge.category: image_inputs(images), self.encoded_name: encoded_inputs(self.files)}
        self._statistics = {
            model: ServerStatistics(client, model, timeout_s=judge.timeout_s) for model in self._inputs
        }
        self.build = build

    @property
    def encoded_name(self) -> str:
        """The ensemble that takes files."""
        return self.judge.category + ENCODED

    def ask(self, model: str) -> Measure:
        """How to measure a model: perf_analyzer over gRPC, and the server's own statistics."""

        def measure(run: Run, requests: int) -> None:
            before = self._statistics[model].snapshot()
            load = self.analyzer.measure(
                model,
                self.judge.url,
                inputs=self._inputs[model],
                concurrency=run.concurrency,
                requests=requests,
                batch=run.batch,
            )
            steps = between(before, self._statistics[model].snapshot())
            run.add(load.latencies_ms, throughput=load.throughput, steps=steps)

        return measure

    def run_chain(self, chain: BareChain) -> Measure:
        """How to measure the bare chain, in this process."""

        def measure(run: Run, requests: int) -> None:
            chain.latencies_ms(self.images, requests=WARM_UP_RUNS, batch=run.batch)
            started = time.perf_counter()
            latencies = chain.latencies_ms(self.images, requests=requests, batch=run.batch)
            run.add(latencies, throughput=run.batch * requests / (time.perf_counter() - started))

        return measure

    def decode(self, run: Run, requests: int) -> None:
        """Decode and resize the files as the server does, in this process."""
        latencies = []
        for index in range(requests):
            file = self.files[index % len(self.files)]
            started = time.perf_counter()
            resize_image(decode_image(file), self.judge.image_size)
            latencies.append(1000 * (time.perf_counter() - started))
        run.add(latencies, throughput=1000 * requests / sum(latencies))
