"""The fusion of one image on one thread beside the same three filters in torch, in turns: `make bench-all WHAT=fusion`.

Each contender takes distance maps that lie in memory and gives map, score, label and mask.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from client.benchmark.bars import Bar
from model_repository.distance_fusion.map_fusion import Calibration, Verdict, fuse_distances, judge
from model_repository.image_size import square_side
from tests.benchmarks.distances import (
    batch_distances,
    calibration_of,
    score_batch,
    seeded_distances,
    verdict_of,
)
from tests.benchmarks.results import FOLDER, run, time_in_turns, write_results

SIZES = (128, 256)
MOST_MS, LEAST_RATIO = 1.0, 10.0
TURNS, CALLS = 40, 10
BATCHES = (1, 8, 32)
WORKS = {"with maps": verdict_of, "scores alone": score_batch}
PEERS = {
    "separable": "torch, two 1-D convolutions",  # kornia's default
    "square": "torch, one 2-D convolution",  # torchvision's gaussian_blur and anomalib's GaussianBlur2d
}


def ours(distances: list[NDArray[np.float32]], calibration: Calibration) -> Verdict:
    """What the server does."""
    return judge(fuse_distances(distances, calibration.fusion), calibration)


@dataclass(frozen=True)
class TorchFilters:
    """Upsample, add up, blur, pool, judge: Section 3.4 as one writes it in torch.

    Attributes:
        distances: [1, 1, h, h] float32 a stage.
        kernels: convolved with one after the other; [1, 1, 1, K] and [1, 1, K, 1], or [1, 1, K, K].
        radius: of the kernels, pixels.
    """

    distances: Sequence[Tensor]
    kernels: Sequence[Tensor]
    radius: int
    calibration: Calibration

    @classmethod
    def of(
        cls, distances: list[NDArray[np.float32]], calibration: Calibration, *, separable: bool
    ) -> TorchFilters:
        """Kernels of 4 sigma; without `separable` their outer product."""
        radius = int(4 * calibration.smoothing_sigma + 0.5)
        offsets = torch.arange(-radius, radius + 1)
        line = torch.exp(-0.5 * (offsets / calibration.smoothing_sigma) ** 2)
        line = line / line.sum()
        rows, columns = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
        return cls(
            distances=[torch.from_numpy(distance)[:, None] for distance in distances],
            kernels=[rows, columns] if separable else [rows * columns],
            radius=radius,
            calibration=calibration,
        )

    @torch.inference_mode()
    def __call__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map [1, 1, S, S], score, label, mask."""
        size, window = square_side(self.calibration.image_size), self.calibration.pool_size
        anomaly_map = torch.zeros(1, 1, size, size)
        for weight, distance in zip(self.calibration.stage_weights, self.distances, strict=True):
            anomaly_map += weight * F.interpolate(
                distance, (size, size), mode="bilinear", align_corners=False
            )
        anomaly_map = F.pad(anomaly_map, [self.radius] * 4, mode="reflect")
        for kernel in self.kernels:
            anomaly_map = F.conv2d(anomaly_map, kernel)
        anomaly_map = F.avg_pool2d(
            anomaly_map, window, stride=1, padding=window // 2, count_include_pad=False
        )
        score = anomaly_map.amax(dim=(2, 3))
        label = score > self.calibration.image_threshold
        return anomaly_map, score, label, anomaly_map > self.calibration.pixel_threshold


def largest_differences(size: int, peer: TorchFilters) -> tuple[float, float]:
    """Of the maps, of all pixels and of those that see no border: torch mirrors it without the edge's pixel."""
    fused = fuse_distances(seeded_distances(size), calibration_of(size).fusion)[0]
    difference = np.abs(peer()[0][0, 0].numpy() - fused)
    border = peer.radius + peer.calibration.pool_size // 2
    return float(difference.max()), float(difference[border:-border, border:-border].max())


def measure(size: int, *, turns: int, calls: int) -> dict[str, Any]:
    """Medians in milliseconds, ratios to ours and differences from ours, of one image size."""
    distances, calibration = seeded_distances(size), calibration_of(size)
    peers = {name: TorchFilters.of(distances, calibration, separable=name == "separable") for name in PEERS}
    contenders: dict[str, Callable[[], object]] = {"ours": partial(ours, distances, calibration), **peers}
    taken = time_in_turns(contenders, turns=turns, calls=calls)
    median = {name: statistics.median(latencies) for name, latencies in taken.items()}
    measured: dict[str, Any] = {"size": size, "ours": {"ms": median["ours"]}}
    for name, peer in peers.items():
        everywhere, inside = largest_differences(size, peer)
        measured[name] = {
            "ms": median[name],
            "ratio": median[name] / median["ours"],
            "difference": everywhere,
            "difference_away_from_borders": inside,
        }
    return measured


def images_per_s(size: int, *, turns: int) -> list[dict[str, float]]:
    """Of one thread by batch, with maps and with scores alone, in turns."""
    measured = []
    for batch in BATCHES:
        distances, calibration = batch_distances(size, batch), calibration_of(size)
        works: dict[str, Callable[[], object]] = {
            name: partial(work, distances, calibration) for name, work in WORKS.items()
        }
        taken = time_in_turns(works, turns=turns, calls=1)
        rates = {name: 1000 * batch / statistics.median(taken_ms) for name, taken_ms in taken.items()}
        measured.append({"size": size, "batch": batch, **rates})
    return measured


def throughput_table(results: list[dict[str, float]]) -> Table:
    """One line a size and batch."""
    table = Table(title="Images/s of the fusion: one process with one thread")
    for column in ("px", "batch", *WORKS):
        table.add_column(column, justify="right")
    for measured in results:
        table.add_row(*(f"{value:,.0f}" for value in measured.values()))
    return table


def bars_of(measured: dict[str, Any]) -> list[Bar]:
    """The limits of an image size."""
    at = f"at {measured['size']} px"
    ratios = [
        Bar(
            name=f"times as fast as {label}, {at}",
            value=measured[name]["ratio"],
            limit=LEAST_RATIO,
            at_most=False,
        )
        for name, label in PEERS.items()
    ]
    return [
        Bar(name=f"fusion of an image {at}, ms", value=measured["ours"]["ms"], limit=MOST_MS, at_most=True),
        *ratios,
    ]


def table_of(results: list[dict[str, Any]]) -> Table:
    """One line a contender and size."""
    table = Table(title="Distance maps to map, score, label and mask: one image, one thread")
    for column in ("px", "", "ms", "times ours", "largest difference", "away from borders"):
        table.add_column(column, justify="right" if column else "left")
    for measured in results:
        table.add_row(str(measured["size"]), "ours", f"{measured['ours']['ms']:.3f}", "", "", "")
        for name, label in PEERS.items():
            peer = measured[name]
            table.add_row(
                "",
                label,
                f"{peer['ms']:.3f}",
                f"{peer['ratio']:.1f}",
                f"{peer['difference']:.1e}",
                f"{peer['difference_away_from_borders']:.1e}",
            )
    return table


def main() -> None:
    """Measure every size and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=TURNS, help="times each contender has its turn")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls a turn")
    parser.add_argument("--json", type=Path, default=FOLDER / "fusion.json", help="gets the results")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        results = [measure(size, turns=asked.turns, calls=asked.calls) for size in SIZES]
        rates = [rate for size in SIZES for rate in images_per_s(size, turns=asked.turns)]
    bars = [bar for measured in results for bar in bars_of(measured)]
    console = Console(width=120, highlight=False)
    console.print(table_of(results))
    console.print(throughput_table(rates))
    for bar in bars:
        console.print(str(bar))
    write_results(asked.json, {"sizes": results, "images_per_s": rates}, bars)


if __name__ == "__main__":
    run(main)
