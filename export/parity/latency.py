"""Sizes of a category's builds, and what each costs on this CPU beside float32: timed in turns in one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort
import torch
from rich.table import Column, Table

from export.graphs.chain import OnnxChain
from export.manifest import GraphFiles, existing_builds
from export.parity.gate import require_release
from export.parity.images import product_images
from export.product import ProductPaths
from train.checkpoint.tensors import load_checkpoint
from train.data.pictures.loading import load_images
from train.support.cores import usable_cores
from train.support.devices import hardware_name
from train.support.files import write_text
from train.support.progress import progress_bar

N_IMAGES = 8  # taken in turn
WARM_UP_RUNS = 3


@dataclass(frozen=True)
class BuildLatency:
    """A build beside the first one.

    Attributes:
        precision: of its graphs.
        teacher_bytes, student_bytes: sizes of the files.
        median_ms, p90_ms: teacher then student, one image.
        ratio: the median over the rounds of its time over the first build's in the same round.
    """

    precision: str
    teacher_bytes: int
    student_bytes: int
    median_ms: float
    p90_ms: float
    ratio: float


@dataclass(frozen=True)
class Latencies:
    """All builds, and where and how they were timed."""

    category: str
    builds: list[BuildLatency]
    hardware: str
    onnxruntime: str
    threads: int
    rounds: int


def measure_builds(product: ProductPaths, *, threads: int, rounds: int) -> Latencies:
    """Time every build of a product in turns, round after round; the first is what the others are compared with.

    Args:
        product: its checkpoint, images and builds.
        threads: of a run; 0 is all cores.
        rounds: times each build is timed.

    Raises:
        UserError: no build, checkpoint or images, or a build of another release or that was changed.
    """
    folders = existing_builds(product.build_dir, product.category)
    checkpoint = load_checkpoint(product.checkpoint)
    for folder in folders.values():
        require_release(folder, checkpoint.release_id)
    data = product_images(checkpoint.provenance, product.images_dir)
    paths = [image.path for image in data.test] or list(data.train_good)
    images = load_images(
        paths[:N_IMAGES],
        image_size=checkpoint.config.image_size,
        strict=False,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        reference=checkpoint.reference,
    ).pixels
    chains = {
        precision: OnnxChain.open(GraphFiles.in_folder(folder), threads=threads)
        for precision, folder in folders.items()
    }
    seconds: dict[str, list[float]] = {precision: [] for precision in folders}
    with progress_bar("Timing in turns", rounds) as bar:
        for chain in chains.values():
            for _ in range(WARM_UP_RUNS):
                chain.run(images[:1])
        for turn in range(rounds):
            image = images[turn % len(images)][None]
            for precision, chain in chains.items():
                started = time.perf_counter()
                chain.run(image)
                seconds[precision].append(time.perf_counter() - started)
            bar.advance()
    return Latencies(
        category=product.category,
        builds=[_latency(precision, folder, seconds) for precision, folder in folders.items()],
        hardware=hardware_name(torch.device("cpu")),
        onnxruntime=ort.__version__,
        threads=threads or usable_cores(),
        rounds=rounds,
    )


def latency_table(measured: Latencies) -> Table:
    """One line a build."""
    first = measured.builds[0].precision
    headings = ("teacher, MiB", "student, MiB", "median, ms", "p90, ms", f"of {first}'s")
    table = Table(
        "precision",
        *(Column(heading, justify="right") for heading in headings),
        title=f"{measured.category}: one image at a time, ONNX Runtime {measured.onnxruntime}, "
        f"{measured.threads} threads, {measured.rounds} rounds in turns",
        caption=measured.hardware,
    )
    for build in measured.builds:
        table.add_row(
            build.precision,
            f"{build.teacher_bytes / 2**20:.2f}",
            f"{build.student_bytes / 2**20:.2f}",
            f"{build.median_ms:.1f}",
            f"{build.p90_ms:.1f}",
            f"{build.ratio:.2f}",
        )
    return table


def write_latencies(measured: Latencies, path: Path) -> Path:
    """Write latencies as JSON; gives back the path."""
    write_text(path, json.dumps(asdict(measured), indent=2) + "\n")
    return path


def _latency(precision: str, folder: Path, seconds: Mapping[str, list[float]]) -> BuildLatency:
    files = GraphFiles.in_folder(folder)
    own, first = seconds[precision], next(iter(seconds.values()))
    return BuildLatency(
        precision=precision,
        teacher_bytes=files.teacher.stat().st_size,
        student_bytes=files.student.stat().st_size,
        median_ms=1e3 * statistics.median(own),
        p90_ms=1e3 * statistics.quantiles(own, n=10)[-1],
        ratio=statistics.median(ours / theirs for ours, theirs in zip(own, first, strict=True)),
    )
