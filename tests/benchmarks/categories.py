"""Memory, start-up and latency of 1, 5 and 15 categories over one teacher: `make bench-all WHAT=categories`.

Every category is a copy of one build with files and a release of its own, published and served by the real server. Its
memory is the proportional set size (PSS) of all its processes: a page that two of them share counts half for each.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc as grpcclient
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from client.benchmark.measured import Load, summarise
from client.benchmark.plots import fit_line
from client.benchmark.tables import milliseconds
from deploy.server import TritonServer
from export.manifest import read_manifest
from export.serving.steps import teacher_name
from model_repository import grpc_channel
from tests.benchmarks.load import Pixels, Send, closed_loop
from tests.benchmarks.releases import publish, serving, weight_bytes
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import copy_as, copy_backends

COUNTS = (1, 5, 15)
IN_FLIGHT = 8
TIMEOUT_S = 120  # of a request
MIB = 2**20
MOST_OF_WEIGHTS = 1.2
MOST_OF_ALONE = 1.1  # what all further categories together may cost another one
MODEL_FILE = re.compile(r"/([^/]+)/\d+/model\.py")


@dataclass(frozen=True, kw_only=True)
class Served:
    """What was measured with some categories.

    Attributes:
        start_s: from the start of the server to every model ready, warmed up; seconds.
        memory_mib: of the server and all stubs, after the traffic.
        memory_at_start_mib: the same before it.
        memory_by_model_mib: of each stub, and of the server itself under `tritonserver`.
        alone_p50_ms: one request in flight, the categories in turn; milliseconds.
        p50_ms, p99_ms, throughput: `IN_FLIGHT` requests in flight, the categories in turn; images a second.
        teacher_images: that the teacher computed meanwhile (`nv_inference_count`).
        teacher_batches: in which it computed them (`nv_inference_exec_count`).
    """

    categories: int
    start_s: float
    memory_mib: float
    memory_at_start_mib: float
    memory_by_model_mib: dict[str, float]
    alone_p50_ms: float
    p50_ms: float
    p99_ms: float | None
    throughput: float
    teacher_images: int
    teacher_batches: int


def memory_by_model(pid: int) -> dict[str, float]:
    """PSS in MiB of a server's process and of each of its stubs, by the model that the stub runs."""
    server = psutil.Process(pid)
    memory = {"tritonserver": 0.0}
    for process in (server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            model = MODEL_FILE.search(" ".join(process.cmdline()))
            name = model[1] if model else "tritonserver"
            memory[name] = memory.get(name, 0) + pss_mib(process.pid)
    return memory


def pss_mib(pid: int) -> float:
    """A process's proportional set size, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024  # from KiB


def teacher_counts(server: TritonServer, teacher: str) -> NDArray[np.int64]:
    """The server's own counts of the teacher's images and batches, from its metrics page."""
    with urllib.request.urlopen(server.metrics_url, timeout=TIMEOUT_S) as answer:
        page = answer.read().decode()
    counts = []
    for metric in ("nv_inference_count", "nv_inference_exec_count"):
        lines = re.findall(rf'^{metric}{{.*model="{re.escape(teacher)}".*}} (\d+)$', page, re.MULTILINE)
        counts.append(sum(map(int, lines)))
    return np.array(counts, np.int64)


def mixed_traffic(
    url: str, categories: Sequence[str], images: Pixels, *, in_flight: int, requests: int
) -> Load:
    """Requests of one image each, to the categories in turn, for whole verdicts."""

    @contextlib.contextmanager
    def connect() -> Iterator[Send]:
        with grpc_channel.connect(url) as client:

            def send(number: int) -> None:
                image = images[number // len(categories) % len(images)][None]
                tensor = grpcclient.InferInput("image", list(image.shape), "UINT8")
                tensor.set_data_from_numpy(image)
                client.infer(categories[number % len(categories)], [tensor], client_timeout=TIMEOUT_S)

            yield send

    return closed_loop(connect, concurrency=in_flight, requests=requests)


def publish_copies(build: Path, count: int, work: Path) -> tuple[Path, list[str]]:
    """A repository with `count` categories over one teacher, and their names."""
    repository = work / "model_repository"
    copy_backends(repository)
    categories = [f"category_{number}" for number in range(1, count + 1)]
    for category in categories:
        copy = copy_as(build, work / "build" / category)
        publish(copy, repository)
        shutil.rmtree(copy)
    return repository, categories


def measure(build: Path, count: int, images: Pixels, *, requests: int) -> Served:
    """Serve `count` categories and put them under mixed traffic."""
    config = read_manifest(build).config
    teacher = teacher_name(config.teacher, config.image_size)
    with tempfile.TemporaryDirectory() as folder:
        repository, categories = publish_copies(build, count, Path(folder))
        with serving(repository, log=Path(folder) / "tritonserver.log") as server:
            at_start = memory_by_model(server.pid)
            alone = mixed_traffic(server.grpc_url, categories, images, in_flight=1, requests=requests)
            before = teacher_counts(server, teacher)
            loaded = mixed_traffic(
                server.grpc_url, categories, images, in_flight=IN_FLIGHT, requests=requests
            )
            seen, batches = (teacher_counts(server, teacher) - before).tolist()
            memory = memory_by_model(server.pid)
            start_s = server.ready_s
    busy = summarise([loaded], concurrency=IN_FLIGHT)
    return Served(
        categories=count,
        start_s=start_s,
        memory_mib=sum(memory.values()),
        memory_at_start_mib=sum(at_start.values()),
        memory_by_model_mib=memory,
        alone_p50_ms=summarise([alone]).p50_ms,
        p50_ms=busy.p50_ms,
        p99_ms=busy.p99_ms,
        throughput=busy.throughput,
        teacher_images=seen,
        teacher_batches=batches,
    )


def fitted_line(served: Sequence[Served], figure: Callable[[Served], float]) -> tuple[float, float]:
    """Slope a category and intercept of the least-squares line through a figure."""
    return fit_line([(each.categories, figure(each)) for each in served])


def bars_of(served: Sequence[Served], student_mib: float) -> list[Bar]:
    """What a further category may cost."""
    slope, _ = fitted_line(served, lambda each: each.memory_mib)
    fewest, most = served[0], served[-1]
    slower, rate = most.alone_p50_ms / fewest.alone_p50_ms, most.throughput / fewest.throughput
    of = f"with {most.categories} categories / with {fewest.categories}"
    return [
        Bar(
            "a further category's memory of its student's weights", slope / student_mib, MOST_OF_WEIGHTS, True
        ),
        Bar(f"p50 of 1 in flight {of}", slower, MOST_OF_ALONE, True),
        Bar(f"images/s {of}", rate, 1 / MOST_OF_ALONE, False),
    ]


def table_of(served: Sequence[Served], title: str) -> Table:
    """One line a number of categories."""
    table = Table(title=title)
    for heading in (
        "categories",
        "start s",
        "memory MiB",
        "a student's stub MiB",
        "p50 ms, 1 in flight",
        f"p50 ms, {IN_FLIGHT}",
        f"p99 ms, {IN_FLIGHT}",
        "images/s",
        "teacher's images",
        "batches",
    ):
        table.add_column(heading, justify="right")
    for each in served:
        table.add_row(
            str(each.categories),
            f"{each.start_s:.1f}",
            f"{each.memory_mib:.0f}",
            f"{stub_mib(each):.0f}",
            f"{each.alone_p50_ms:.1f}",
            f"{each.p50_ms:.1f}",
            milliseconds(each.p99_ms),
            f"{each.throughput:.0f}",
            str(each.teacher_images),
            str(each.teacher_batches),
        )
    return table


def stub_mib(served: Served) -> float:
    """Median over the students."""
    return statistics.median(
        mib for name, mib in served.memory_by_model_mib.items() if name.endswith("_student")
    )


def plot(served: Sequence[Served], path: Path, title: str) -> None:
    """Memory, start-up and latency against the number of categories, each with its fitted line."""
    panels: list[tuple[str, Callable[[Served], float]]] = [
        ("memory, MiB", lambda each: each.memory_mib),
        ("start-up, s", lambda each: each.start_s),
        (f"p50, {IN_FLIGHT} in flight, ms", lambda each: each.p50_ms),
    ]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (label, value) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        slope, intercept = fitted_line(served, value)
        counts = [each.categories for each in served]
        ends = np.array([0, max(counts)])
        axis.plot(ends, intercept + slope * ends, color="tab:gray", linewidth=1)
        axis.plot(counts, [value(each) for each in served], "o", color="tab:blue")
        axis.set(xlabel="categories", ylabel=label, xlim=0, ylim=0)
        axis.set_title(f"{intercept:.3g} + {slope:.2g} a category", fontsize=10)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is asked."""
    parser = build_parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of categories")
    parser.add_argument(
        "--requests", type=int, default=900, help="with 1 and with 8 in flight, of each number"
    )
    parser.add_argument("--json", type=Path, default=FOLDER / "categories.json", help="gets the results")
    parser.add_argument("--plot", type=Path, default=FOLDER / "categories.png", help="gets the plot")
    return parser.parse_args()


def main() -> None:
    """Measure every number of categories, print one table and draw one plot."""
    asked = parse_arguments()
    console = Console(width=140, highlight=False)
    manifest = read_manifest(asked.build)
    images = load_pixels(
        asked.images,
        image_size=manifest.config.image_size,
        bit_depth=manifest.provenance.bit_depth,
    )
    served = []
    for count in sorted(asked.counts):
        with console.status(f"{count} categories"):
            served.append(measure(asked.build, count, images, requests=asked.requests))
    student_mib = weight_bytes(asked.build / "student.onnx") / MIB
    title = f"{manifest.config.preset}, {manifest.config.image_size} px: categories over one teacher"
    bars = bars_of(served, student_mib)
    console.print(table_of(served, title))
    slope, intercept = fitted_line(served, lambda each: each.memory_mib)
    console.print(
        f"Memory is {intercept:.0f} MiB + {slope:.1f} MiB a category; a student's weights {student_mib:.1f} MiB."
    )
    for bar in bars:
        console.print(str(bar))
    plot(served, asked.plot, title)
    results: dict[str, Any] = {"title": title, "student_weights_mib": student_mib}
    write_results(asked.json, {**results, "served": [asdict(each) for each in served]}, bars)


if __name__ == "__main__":
    run(main)
