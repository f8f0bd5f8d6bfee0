"""What is measured in turns: the ensembles through perf_analyzer, the bare chain and the decoding in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from client.benchmark.chain import BareChain
from client.benchmark.images import as_jpeg
from client.benchmark.measured import Load, Measured, summarise
from client.benchmark.perf_analyzer import PerfAnalyzer, encoded_inputs, image_inputs
from client.benchmark.statistics import ServerStatistics, between
from client.core.category import ENCODED
from client.judging.connection import JudgeClient
from model_repository.image_decoder.image_decoding import decode_image, resize_image
from model_repository.image_size import NATIVE

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Run:
    """Rounds of one measurement.

    Attributes:
        send: sends so many requests.
        batch: images a request.
        concurrency: requests in flight.
        rounds: those that were measured.
    """

    send: Callable[[int], Load]
    batch: int = 1
    concurrency: int = 1
    rounds: list[Load] = field(default_factory=list)

    def add_round(self, requests: int) -> None:
        """Measure another round of so many requests."""
        self.rounds.append(self.send(requests))

    def measured(self) -> Measured:
        """All rounds together."""
        return summarise(self.rounds, batch=self.batch, concurrency=self.concurrency)


class Bench:
    """A category on a server, the images to send, a binary that sends them, and the bare chain beside it."""

    def __init__(
        self,
        judge: JudgeClient,
        client: grpcclient.InferenceServerClient,
        analyzer: PerfAnalyzer,
        *,
        images: NDArray[np.uint8],
        chain: BareChain | None,
    ) -> None:
        """Encode real images [N, H, W, 3] as pixels and as JPEG files, and look up the steps of both ensembles.

        The chain runs the very graphs that are served; it is None where they are missing.
        """
        self.judge, self.analyzer, self.images, self.chain = judge, analyzer, images, chain
        own_size = judge.image_size == NATIVE
        self.files = [as_jpeg(image, own_size=own_size) for image in images]
        self._inputs = {
            judge.category: image_inputs(images),
            judge.category + ENCODED: encoded_inputs(self.files),
        }
        self._statistics = {
            model: ServerStatistics(client, model, timeout_s=judge.timeout_s) for model in self._inputs
        }

    def ask(self, *, encoded: bool = False, concurrency: int = 1, batch: int = 1) -> Run:
        """perf_analyzer over gRPC and the server's own statistics; `encoded` sends the JPEG files."""
        model = self.judge.category + (ENCODED if encoded else "")

        def send(requests: int) -> Load:
            before = self._statistics[model].snapshot()
            load = self.analyzer.measure(
                model,
                self.judge.endpoint,
                inputs=self._inputs[model],
                concurrency=concurrency,
                requests=requests,
                batch=batch,
                megapixels=self.images[0, ..., 0].size / 1e6,
            )
            return replace(load, steps=between(before, self._statistics[model].snapshot()))

        return Run(send, batch=batch, concurrency=concurrency)

    def run_chain(self, chain: BareChain, *, batch: int = 1) -> Run:
        """A bare chain, in this process."""

        def send(requests: int) -> Load:
            chain.latencies_ms(self.images, requests=WARM_UP_RUNS, batch=batch)
            started = time.perf_counter()
            latencies = chain.latencies_ms(self.images, requests=requests, batch=batch)
            return Load(latencies, throughput=batch * requests / (time.perf_counter() - started))

        return Run(send, batch=batch)

    def decode(self, requests: int) -> Load:
        """Decode and resize the files as the server does, in this process."""
        latencies = []
        for index in range(requests):
            file = self.files[index % len(self.files)]
            started = time.perf_counter()
            resize_image(decode_image(file), self.judge.image_size, keep_aspect=self.judge.keep_aspect)
            latencies.append(1000 * (time.perf_counter() - started))
        return Load(latencies, throughput=1000 * requests / sum(latencies))
