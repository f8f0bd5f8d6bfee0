"""Is the first request as fast as the hundredth? On freshly started servers: `make bench-warm-up`.

The first start is not counted: it is this client's own first, too. Before it sends an image, the client has connected
and asked for the model's configuration.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from export.manifest import read_manifest
from tests.benchmarks.images import Pixels, load_pixels
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, Bar, run, write_results
from tests.products import copy_backends

REQUESTS = 200
SETTLED = slice(99, 200)  # from the hundredth on
MOST_RATIO = 1.5  # p99 of p50 may be as much
TIMEOUT_S = 60
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
StepTimes = Mapping[str, Mapping[str, float]]  # milliseconds by step and part


@dataclass(frozen=True)
class Start:
    """One start of the server.

    Attributes:
        first_ms, second_ms: latency of these requests, milliseconds.
        settled_ms: median of requests 100 to 200.
        first_steps, settled_steps: means of a request in each step's parts, as the server tells them.
    """

    first_ms: float
    second_ms: float
    settled_ms: float
    first_steps: StepTimes
    settled_steps: StepTimes

    @property
    def ratio(self) -> float:
        """The first request's latency of the settled one."""
        return self.first_ms / self.settled_ms


def sums_ns(client: grpcclient.InferenceServerClient) -> dict[str, dict[str, tuple[int, int]]]:
    """Count and nanoseconds so far, by model and part; ensembles have none of their own."""
    statistics_ = client.get_inference_statistics(client_timeout=TIMEOUT_S)
    return {
        model.name: {
            part: (getattr(model.inference_stats, part).count, getattr(model.inference_stats, part).ns)
            for part in PARTS
        }
        for model in statistics_.model_stats
    }


def times_between(
    before: Mapping[str, Mapping[str, tuple[int, int]]], after: Mapping[str, Mapping[str, tuple[int, int]]]
) -> StepTimes:
    """Means in milliseconds over the requests between two `sums_ns`, of the models that had any."""
    found: dict[str, dict[str, float]] = {}
    for model, parts in after.items():
        for part, (count, total) in parts.items():
            earlier_count, earlier_total = before[model][part]
            if count > earlier_count and total > earlier_total:
                mean = (total - earlier_total) / (count - earlier_count) / 1e6
                found.setdefault(model, {})[part] = mean
    return found


def measure_start(repository: Path, category: str, images: Pixels, log: Path) -> Start:
    """Start a server, ask it `REQUESTS` times, one after the other, and stop it."""
    with (
        serving(repository, log=log) as server,
        grpcclient.InferenceServerClient(server.grpc_url) as client,
    ):
        client.get_model_config(category, client_timeout=TIMEOUT_S)

        def latency_ms(number: int) -> float:
            image = images[number % len(images)][None]
            tensor = grpcclient.InferInput("image", list(image.shape), "UINT8")
            tensor.set_data_from_numpy(image)
            started = perf_counter()
            client.infer(category, [tensor], client_timeout=TIMEOUT_S)
            return 1000 * (perf_counter() - started)

        fresh = sums_ns(client)
        latencies = [latency_ms(0)]
        after_first = sums_ns(client)
        latencies += [latency_ms(number) for number in range(1, SETTLED.start)]
        before_settled = sums_ns(client)
        latencies += [latency_ms(number) for number in range(SETTLED.start, REQUESTS)]
        return Start(
            first_ms=latencies[0],
            second_ms=latencies[1],
            settled_ms=statistics.median(latencies[SETTLED]),
            first_steps=times_between(fresh, after_first),
            settled_steps=times_between(before_settled, sums_ns(client)),
        )


def median_steps(all_steps: list[StepTimes]) -> dict[str, dict[str, float]]:
    """Medians over the starts."""
    return {
        step: {part: float(np.median([steps[step][part] for steps in all_steps])) for part in parts}
        for step, parts in all_steps[0].items()
        if all(parts.keys() <= steps.get(step, {}).keys() for steps in all_steps)
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
        cells = (f"{parts.get(part, 0):.2f} / {settled.get(step, {}).get(part, 0):.2f}" for part in PARTS)
        steps.add_row(step, *cells)
    return [latencies, steps]


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is started."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=Path("build/pill"), help="what `export onnx` made")
    parser.add_argument("--images", type=Path, required=True, help="folder of images to send")
    parser.add_argument("--starts", type=int, default=5, help="of the server, one more is not counted")
    parser.add_argument("--json", type=Path, default=FOLDER / "warm_up.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Start the server some times and print two tables."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    images = load_pixels(asked.images, manifest.config.image_size)
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
    bars = [Bar(what="the first request's latency of the later ones'", value=ratio, at_most=MOST_RATIO)]
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
