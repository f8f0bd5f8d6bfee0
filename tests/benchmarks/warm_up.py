"""Is the first request to a freshly started server as fast as the hundredth? `make bench-all WHAT=warm-up`.

The first start is not counted, as this client then starts too. Before it sends an image, the client connects and asks
for the model's configuration.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from client.benchmark.images import load_pixels
from client.benchmark.statistics import ServerStatistics, StepTimes, between
from export.manifest import read_manifest
from model_repository.grpc_channel import connect
from tests.benchmarks.load import Pixels
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import copy_backends

REQUESTS = 200
SETTLED = slice(99, 200)  # from the hundredth on
MOST_RATIO = 1.5  # p99 of p50 may be as much
TIMEOUT_S = 60
PARTS = ("queue_ms", "input_ms", "infer_ms", "output_ms")
Steps = tuple[StepTimes, ...]


@dataclass(frozen=True)
class Start:
    """One start of the server.

    Attributes:
        first_ms, second_ms: latency of these requests, milliseconds.
        settled_ms: median of requests 100 to 200.
        first_steps, settled_steps: the server's own times of each step, means of a request.
    """

    first_ms: float
    second_ms: float
    settled_ms: float
    first_steps: Steps
    settled_steps: Steps

    @property
    def ratio(self) -> float:
        """The first request's latency divided by the settled one."""
        return self.first_ms / self.settled_ms


def measure_start(repository: Path, category: str, images: Pixels, log: Path) -> Start:
    """Start a server, ask it `REQUESTS` times, one after the other, and stop it."""
    with (
        serving(repository, log=log) as server,
        connect(server.grpc_url) as client,
    ):
        server_statistics = ServerStatistics(client, category, timeout_s=TIMEOUT_S)

        def latency_ms(number: int) -> float:
            image = images[number % len(images)][None]
            tensor = grpcclient.InferInput("image", list(image.shape), "UINT8")
            tensor.set_data_from_numpy(image)
            started = perf_counter()
            client.infer(category, [tensor], client_timeout=TIMEOUT_S)
            return 1000 * (perf_counter() - started)

        fresh = server_statistics.snapshot()
        latencies = [latency_ms(0)]
        after_first = server_statistics.snapshot()
        latencies += [latency_ms(number) for number in range(1, SETTLED.start)]
        before_settled = server_statistics.snapshot()
        latencies += [latency_ms(number) for number in range(SETTLED.start, REQUESTS)]
        return Start(
            first_ms=latencies[0],
            second_ms=latencies[1],
            settled_ms=statistics.median(latencies[SETTLED]),
            first_steps=between(fresh, after_first),
            settled_steps=between(before_settled, server_statistics.snapshot()),
        )


def median_steps(starts: list[Steps]) -> dict[str, dict[str, float]]:
    """Medians over the starts, by step and part."""
    return {
        same[0].model: {part: statistics.median(getattr(step, part) for step in same) for part in PARTS}
        for same in zip(*starts, strict=True)
    }


def tables_of(starts: list[Start], title: str) -> list[Table]:
    """Starts, and where the time went."""
    latencies = Table(title=title)
    for heading in ("start", "first ms", "second ms", "100th to 200th, median ms", "first of these"):
        latencies.add_column(heading, justify="right")
    for number, start in enumerate(starts, 1):
        figures = (start.first_ms, start.second_ms, start.settled_ms, start.ratio)
        latencies.add_row(str(number), *(f"{figure:.2f}" for figure in figures))
    steps = Table(
        title="Where the first request's time went, and the later ones', ms; medians over the starts"
    )
    for heading in ("step", *PARTS):
        steps.add_column(heading, justify="right" if heading != "step" else "left")
    first = median_steps([start.first_steps for start in starts])
    settled = median_steps([start.settled_steps for start in starts])
    for step, parts in first.items():
        cells = (f"{parts[part]:.2f} / {settled[step][part]:.2f}" for part in PARTS)
        steps.add_row(step, *cells)
    return [latencies, steps]


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is started."""
    parser = build_parser(__doc__)
    parser.add_argument("--starts", type=int, default=5, help="of the server, one more is not counted")
    parser.add_argument("--json", type=Path, default=FOLDER / "warm_up.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Start the server some times and print two tables."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    images = load_pixels(
        asked.images,
        image_size=manifest.config.image_size,
        bit_depth=manifest.provenance.bit_depth,
    )
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "model_repository"
        copy_backends(repository)
        publish(asked.build, repository)
        starts = []
        for number in range(asked.starts + 1):
            with console.status(f"Start {number} of {asked.starts}"):
                log = Path(folder) / "tritonserver.log"
                starts.append(measure_start(repository, manifest.category, images, log))
    starts = starts[1:]
    ratio = statistics.median(start.ratio for start in starts)
    bars = [
        Bar(
            name="the first request's latency of the later ones'", value=ratio, limit=MOST_RATIO, at_most=True
        )
    ]
    for table in tables_of(
        starts, f"{manifest.category}, {manifest.config.image_size} px, one request in flight"
    ):
        console.print(table)
    for bar in bars:
        console.print(str(bar))
    results: dict[str, Any] = {"category": manifest.category, "starts": [asdict(start) for start in starts]}
    write_results(asked.json, {**results, "ratio": ratio}, bars)


if __name__ == "__main__":
    run(main)
