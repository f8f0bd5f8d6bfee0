"""Measure the ensemble and what it is compared with, in one run and in turns."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from client.benchmark.calls import measure_calls
from client.benchmark.chain import GRAPHS, BareChain, default_settings, find_settings
from client.benchmark.machine import is_here, now, this_machine, versions
from client.benchmark.measured import BEYOND, Measured, summarise
from client.benchmark.perf_analyzer import PerfAnalyzer, encoded_inputs, image_inputs
from client.benchmark.result import BenchResult, Header
from client.benchmark.statistics import ServerStatistics, StepTimes, between, pooled
from client.console import console
from client.judging.connection import JudgeClient
from client.judging.errors import ImageFileError
from client.pictures.images import find_images, load_image
from model_repository.image_decoder.image_decoding import decode_image, resize_image

MAX_IMAGES = 16  # sent in turn
ROUNDS = 5  # all of them in turns: the machine's speed may drift during the run
WARM_UP_RUNS = 3
JPEG_SIZE = 1024
JPEG_QUALITY = 90
CONCURRENCIES = (1, 2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        requests: of each measurement that a bar stands on, over all rounds.
        sweep_requests: of each point of a sweep; 0 leaves the sweeps and the client's ways to ask out.
        concurrencies: requests in flight, the points of the one sweep.
        batches: images a request, those of the others; what the ensemble does not take is left out.
    """

    requests: int = 500
    sweep_requests: int = 200
    concurrencies: Sequence[int] = CONCURRENCIES
    batches: Sequence[int] = BATCHES


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
        """Encode the images both ways, and open the bare chain where its graphs are.

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
        return f"{self.judge.category}_encoded"

    def ask(self, model: str) -> Measure:
        """perf_analyzer over gRPC."""

        def measure(run: Run, requests: int) -> None:
            before = self._statistics[model].snapshot()
            found = self.analyzer.measure(
                model,
                self.judge.url,
                inputs=self._inputs[model],
                concurrency=run.concurrency,
                requests=requests,
                batch=run.batch,
            )
            steps = between(before, self._statistics[model].snapshot())
            run.add(found.latencies_ms, throughput=found.throughput, steps=steps)

        return measure

    def run_chain(self, chain: BareChain) -> Measure:
        """The bare chain in this process."""

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


def benchmark_category(
    *,
    category: str,
    url: str,
    timeout_s: float,
    images_dir: Path,
    build: Path,
    perf_analyzer: str | None,
    options: Options,
) -> BenchResult:
    """Read real images, find the server and the binary, and measure.

    Args:
        category: the ensemble.
        url: host:port of the gRPC endpoint.
        timeout_s: deadline of the calls that look the category up, seconds.
        images_dir: images to send, MAX_IMAGES of them spread over the folder.
        build: build/<category>; the bare chain runs the graphs there that are of the served precision.
        perf_analyzer: the binary, or None to look for it.
        options: how much is measured.

    Raises:
        ClientError: no server, no images, a model that is no category, or no binary that runs here.
    """
    analyzer = PerfAnalyzer(perf_analyzer)
    with ExitStack() as stack:
        judge = stack.enter_context(JudgeClient(url, category=category, timeout_s=timeout_s))
        client = grpcclient.InferenceServerClient(url)
        stack.callback(client.close)
        images = load_pixels(images_dir, image_size=judge.image_size)
        # Where `export` keeps the graphs of a precision.
        build = build if judge.precision == "fp32" else build / judge.precision
        bench = Bench(judge, client, analyzer, images=images, build=build)
        header = describe(judge, client, analyzer, n_images=len(images))
        return measure_all(bench, header, options)


def measure_all(bench: Bench, header: Header, options: Options) -> BenchResult:
    """Latencies in turns, then the sweeps, then throughput at its best in turns."""
    category = bench.judge.category
    found: dict[str, Any] = {}
    kinds: dict[str, tuple[Run, Measure]] = {
        "ensemble": (Run(), bench.ask(category)),
        "encoded": (Run(), bench.ask(bench.encoded_name)),
        "decoding": (Run(), bench.decode),
    }
    chain = open_chain(bench)
    if chain is not None:
        found["chain_settings"] = chain.settings
        kinds["bare_chain"] = Run(), bench.run_chain(chain)
        kinds["default_chain"] = Run(), bench.run_chain(BareChain(bench.build, default_settings()))
    found |= in_turns(kinds, options.requests, description="Latency, in turns")
    if options.sweep_requests:
        found |= sweep(bench, chain, options)
        found |= best_throughput(bench, chain, found, options)
        found["calls"] = measure_calls(
            bench.judge.url,
            category=category,
            timeout_s=bench.judge.timeout_s,
            images=[Image.fromarray(image) for image in bench.images],
            requests=options.sweep_requests,
            shared_memory=header.server_is_here,
        )
    return BenchResult(header=header, **found)


def open_chain(bench: Bench) -> BareChain | None:
    """The bare chain with the best settings of this machine, or None where its graphs are not."""
    if not all((bench.build / graph).is_file() for graph in GRAPHS):
        console.print(
            f"No bare chain: {bench.build} does not hold {' and '.join(GRAPHS)}; they come with `python -m export "
            "onnx`, and --build-dir says where they are."
        )
        return None
    with console.status("The bare chain's best settings"):
        return BareChain(bench.build, find_settings(bench.build, bench.images))


def in_turns(
    kinds: dict[str, tuple[Run, Measure]], requests: int, *, description: str
) -> dict[str, Measured]:
    """Measure every kind ROUNDS times, one after the other."""
    turns = [turn for _ in range(ROUNDS) for turn in kinds.values()]
    for run, measure in track(turns, description=description, console=console, transient=True):
        measure(run, -(-requests // ROUNDS))
    return {name: run.measured() for name, (run, _) in kinds.items()}


def sweep(bench: Bench, chain: BareChain | None, options: Options) -> dict[str, tuple[Measured, ...]]:
    """One measurement a point."""
    ask = bench.ask(bench.judge.category)
    batches = [batch for batch in options.batches if batch <= bench.judge.max_batch]
    points: list[tuple[str, Run, Measure]] = [
        *(("concurrency_sweep", Run(concurrency=number), ask) for number in options.concurrencies),
        *(("batch_sweep", Run(batch=batch), ask) for batch in batches),
    ]
    if chain is not None:
        run_chain = bench.run_chain(chain)
        points += [("chain_batch_sweep", Run(batch=batch), run_chain) for batch in batches]
    for _, run, measure in track(points, description="Sweeps", console=console, transient=True):
        measure(run, max(options.sweep_requests // run.batch, 2 * run.concurrency, 2 * BEYOND))
    return {
        name: tuple(run.measured() for kind, run, _ in points if kind == name)
        for name in dict.fromkeys(kind for kind, _, _ in points)
    }


def best_throughput(
    bench: Bench, chain: BareChain | None, swept: dict[str, tuple[Measured, ...]], options: Options
) -> dict[str, Measured]:
    """The best points of the sweeps again, in turns."""
    best = max(swept["concurrency_sweep"], key=lambda point: point.throughput)
    kinds: dict[str, tuple[Run, Measure]] = {
        "loaded": (Run(concurrency=best.concurrency), bench.ask(bench.judge.category))
    }
    if chain is not None:
        best_chain = max(swept["chain_batch_sweep"], key=lambda point: point.throughput)
        kinds["loaded_chain"] = Run(batch=best_chain.batch), bench.run_chain(chain)
    return in_turns(kinds, options.requests, description="Throughput, in turns")


def describe(
    judge: JudgeClient, client: grpcclient.InferenceServerClient, analyzer: PerfAnalyzer, *, n_images: int
) -> Header:
    """The head of a result."""
    server: Any = client.get_server_metadata(client_timeout=judge.timeout_s)
    return Header(
        category=judge.category,
        preset=judge.preset,
        precision=judge.precision,
        platform=judge_platform(judge, client),
        release_id=judge.release_id,
        image_size=judge.image_size,
        n_images=n_images,
        started=now(),
        machine=this_machine(),
        server_is_here=is_here(judge.url),
        server=f"{server.name} {server.version}",
        perf_analyzer=analyzer.version,
        versions=versions(),
    )


def judge_platform(judge: JudgeClient, client: grpcclient.InferenceServerClient) -> str:
    """What runs the backbones: the backend of the step that gives the teacher's features."""
    ensemble: Any = client.get_model_config(judge.category, client_timeout=judge.timeout_s).config
    steps = ensemble.ensemble_scheduling.step
    teacher = next((step.model_name for step in steps if "teacher_1" in step.output_map), None)
    if teacher is None:
        return "unknown"
    config: Any = client.get_model_config(teacher, client_timeout=judge.timeout_s).config
    return str(config.backend)


def load_pixels(folder: Path, *, image_size: int) -> NDArray[np.uint8]:
    """Resized images [N, S, S, 3], up to MAX_IMAGES spread over a folder; those that cannot be read are left out.

    Raises:
        ImageFileError: there are none, or none can be read.
    """
    files = find_images([folder])
    n_sent = min(len(files), MAX_IMAGES)
    pixels, faults = [], []
    for index in range(n_sent):
        try:
            pixels.append(resize_image(load_image(files[index * len(files) // n_sent].path), image_size))
        except ImageFileError as error:
            faults.append(error)
    if not pixels:
        raise faults[0]
    return np.stack(pixels)


def as_jpeg(image: NDArray[np.uint8]) -> bytes:
    """An image [S, S, 3] as a JPEG file of a camera's size."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image).resize((JPEG_SIZE, JPEG_SIZE), Image.Resampling.BICUBIC)
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
