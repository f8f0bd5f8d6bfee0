"""How fast training is beside a plain loop of the same network, both in one run, in turns.

Run by `make bench-all WHAT=training`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from client.benchmark.bars import Bar
from tests.benchmarks.results import FOLDER, run, write_results
from tests.benchmarks.training_loops import kept_features, our_losses, plain_losses
from train.config import PRESETS, FitConfig, fit_config
from train.data.pictures.loading import load_images
from train.data.sources import find_category
from train.errors import DataError
from train.fitting.features import GoodImages
from train.method.student import build_teacher_and_student
from train.support.devices import choose_device, hardware_name
from train.support.progress import progress_bar

# At least so many times the plain loop's images per second, on a CPU.
TARGET_RATIOS = {"edge": 1.8, "paper": 1.4}


@dataclass(frozen=True)
class TrainingSpeed:
    """Times and losses of one loop.

    Attributes:
        seconds: of a step, the mean of each round; the first round is not counted.
        losses: of every step.
        seconds_before: before the first step: the teacher's features, which `train fit` computes once.
    """

    seconds: list[float]
    losses: list[float]
    seconds_before: float = 0.0

    @property
    def seconds_a_step(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class TrainingComparison:
    """Ours beside the plain loop."""

    config: FitConfig
    n_images: int
    hardware: str
    ours: TrainingSpeed
    plain: TrainingSpeed

    @property
    def pair_ratios(self) -> list[float]:
        """Images per second of ours over the plain loop's, in each round."""
        return [plain / ours for plain, ours in zip(self.plain.seconds, self.ours.seconds, strict=True)]

    @property
    def step_ratio(self) -> float:
        """The median of `pair_ratios`."""
        return statistics.median(self.pair_ratios)

    @property
    def run_ratio(self) -> float:
        """The plain loop's seconds over ours for the configuration's whole run, the teacher's features counted in."""
        n_steps = self.config.total_steps(self.n_images)
        plain, ours = (
            speed.seconds_before + n_steps * speed.seconds_a_step for speed in (self.plain, self.ours)
        )
        return plain / ours


def compare_training_speed(
    config: FitConfig,
    images: NDArray[np.uint8],
    *,
    weights_dir: Path | None,
    device: torch.device,
    round_steps: int,
    rounds: int,
    scratch_dir: Path,
) -> TrainingComparison:
    """Train the same network with both loops in turns, a round of ours and a round of the plain one.

    Both start from the same weights and see the same images and masks in the same order.

    Args:
        config: what is trained.
        images: [N, S, S, 3] uint8.
        weights_dir: see `train.method.pretrained_weights.load_weights`.
        device: where to train.
        round_steps: steps of a round.
        rounds: how many are timed, after one to warm up.
        scratch_dir: see `train.fitting.features.compute_teacher_features`.
    """
    teacher, student, _ = build_teacher_and_student(config, weights_dir=weights_dir)
    plain_teacher, plain_student = copy.deepcopy(teacher).to(device), copy.deepcopy(student).to(device)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    started = perf_counter()
    features = kept_features(teacher, student, images, config=config, scratch_dir=scratch_dir, device=device)
    seconds_before = perf_counter() - started

    n_steps = round_steps * (rounds + 1)  # the first round warms up
    good = GoodImages(images, features, [""] * len(images))
    for network in (student, plain_student):
        network.set_teacher_statistics(features.means(), features.stds())
    losses: dict[str, Iterator[Tensor]] = {
        "ours": our_losses(student, good, config=config, n_steps=n_steps, device=device),
        "plain": plain_losses(
            plain_teacher, plain_student, images, config=config, n_steps=n_steps, device=device
        ),
    }
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    seen: dict[str, list[Tensor]] = {"ours": [], "plain": []}
    with progress_bar("Training in turns", 2 * n_steps) as bar:
        for _ in range(rounds + 1):
            for name, loop in losses.items():
                started = perf_counter()
                for _ in range(round_steps):
                    seen[name].append(next(loop))
                    bar.advance(note=name)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[name].append((perf_counter() - started) / round_steps)
    return TrainingComparison(
        config=config,
        n_images=len(images),
        hardware=hardware_name(device),
        ours=TrainingSpeed(seconds["ours"][1:], torch.stack(seen["ours"]).tolist(), seconds_before),
        plain=TrainingSpeed(seconds["plain"][1:], torch.stack(seen["plain"]).tolist()),
    )


def comparison_table(comparison: TrainingComparison) -> Table:
    """Both loops beside each other."""
    config, n_last = comparison.config, 10
    shown = Table(
        title=f"Training, preset {config.preset}, {config.image_size} px, batch {config.batch_size}",
        caption=comparison.hardware,
    )
    for column in ("", "images/s", "s before", f"loss, last {n_last} steps"):
        shown.add_column(column, justify="left" if not column else "right")
    for label, speed in (("plain loop", comparison.plain), ("train fit", comparison.ours)):
        shown.add_row(
            label,
            f"{config.batch_size / speed.seconds_a_step:.2f}",
            f"{speed.seconds_before:.1f}",
            f"{statistics.mean(speed.losses[-n_last:]):.4f}",
        )
    return shown


def bar_of(comparison: TrainingComparison) -> Bar:
    """What the ratio is held to."""
    limit = TARGET_RATIOS[comparison.config.preset]
    name = "times the plain loop's images per second"
    return Bar(name=name, value=comparison.step_ratio, limit=limit, at_most=False)


def parse_arguments() -> argparse.Namespace:
    """What is trained, and for how long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--preset", default="edge", choices=list(PRESETS), help="what is trained")
    parser.add_argument("--category", default="pill", help="product")
    parser.add_argument("--data", default="synthetic", help="data set or folder, as for `train fit`")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where data sets lie")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights-dir", type=Path, help="pretrained weights, as for `train fit`")
    weights.add_argument("--random-weights", action="store_true", help="untrained backbones")
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--device", default="auto", help="cuda, cpu or auto")
    parser.add_argument("--round-steps", type=int, default=5, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up")
    parser.add_argument("--json", type=Path, help="gets the results  (default: in runs/benchmarks)")
    return parser.parse_args()


def main() -> None:
    """Train with both loops and print one table."""
    asked = parse_arguments()
    overrides = {"weights": "random"} if asked.random_weights else {}
    if asked.batch_size is not None:
        overrides["batch_size"] = asked.batch_size
    config = fit_config(asked.preset, overrides)
    data = find_category(asked.category, data=asked.data, data_dir=asked.data_dir)
    images = load_images(data.train_good, image_size=config.image_size, strict=True).pixels
    if len(images) < config.batch_size:
        raise DataError(
            f"Category {asked.category!r} has {len(images)} good images; expected at least one batch of "
            f"{config.batch_size}; add images or lower --batch-size."
        )
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare_training_speed(
            config,
            images,
            weights_dir=asked.weights_dir,
            device=choose_device(asked.device),
            round_steps=asked.round_steps,
            rounds=asked.rounds,
            scratch_dir=Path(folder),
        )
    bar = bar_of(comparison)
    console = Console(width=120, highlight=False)
    console.print(comparison_table(comparison))
    console.print(str(bar))
    pairs, n_steps = comparison.pair_ratios, config.total_steps(len(images))
    console.print(
        f"Rounds from {min(pairs):.2f} to {max(pairs):.2f}; {comparison.run_ratio:.2f} over a run of {n_steps} steps, "
        "the teacher's features counted in."
    )
    results = {
        **config.model_dump(include={"preset", "image_size", "batch_size", "weights"}),
        "dataset": f"{data.dataset}/{data.category}",
        "hardware": comparison.hardware,
        "ours": asdict(comparison.ours),
        "plain": asdict(comparison.plain),
    }
    write_results(asked.json or FOLDER / f"training-{config.preset}.json", results, [bar])


if __name__ == "__main__":
    run(main)
