"""The benchmark of training: both loops train the same, and each second is counted where it is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks import training, training_loops
from tests.benchmarks.training import (
    TrainingComparison,
    TrainingSpeed,
    bar_of,
    compare_training_speed,
    comparison_table,
)
from tests.conftest import TINY_OPTIONS
from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.fitting import loop
from train.fitting.features import TeacherFeatures

CONFIG = fit_config("edge", TINY_OPTIONS | {"steps": 12})


def compare(data: CategoryData, scratch_dir: Path, config: FitConfig = CONFIG) -> TrainingComparison:
    images = load_images(data.train_good, image_size=config.image_size, strict=True).pixels
    return compare_training_speed(
        config,
        images,
        weights_dir=None,
        device=torch.device("cpu"),
        round_steps=4,
        rounds=2,
        scratch_dir=scratch_dir,
    )


def test_both_loops_go_through_the_same_losses(tiny_data: CategoryData, tmp_path: Path) -> None:
    comparison = compare(tiny_data, tmp_path)
    assert len(comparison.ours.losses) == len(comparison.plain.losses) == 12
    assert comparison.ours.losses == pytest.approx(comparison.plain.losses, rel=1e-3)
    assert comparison.ours.losses[-1] < comparison.ours.losses[0]


def test_seconds_are_those_of_each_loop_and_the_first_round_is_not_counted(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which the teacher's pass, a step of ours and a step of the plain loop take seconds of their own."""
    clock, real_take_step = {"now": 0.0, "steps": 0}, loop.take_step

    def lasting(name: str, seconds: float) -> None:
        original = getattr(training_loops, name)

        def call(*arguments: Any, **options: Any) -> Any:
            clock["now"] += seconds
            return original(*arguments, **options)

        monkeypatch.setattr(training_loops, name, call)

    def take_step(*arguments: Any) -> Any:
        clock["steps"] += 1
        clock["now"] += 100 if clock["steps"] <= 4 else 2
        return real_take_step(*arguments)

    monkeypatch.setattr(training, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(loop, "take_step", take_step)
    lasting("compute_teacher_features", 7)
    lasting("mask_features", 3)
    comparison = compare(tiny_data, tmp_path)
    assert (comparison.ours.seconds_before, comparison.plain.seconds_before) == (7, 0)
    assert comparison.ours.seconds == [2, 2]
    assert comparison.plain.seconds == [3, 3]


def test_on_a_gpu_features_are_kept_where_fit_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, teacher, student = TeacherFeatures(()), object(), object()
    monkeypatch.setattr(training_loops, "choose_place", lambda *_, **__: "device")
    monkeypatch.setattr(
        training_loops, "keep_features", lambda place, *_: kept if place == "device" else None
    )
    asked = {"config": CONFIG, "scratch_dir": tmp_path, "device": torch.device("cuda")}
    assert training_loops.kept_features(teacher, student, np.zeros((2, 64, 64, 3), np.uint8), **asked) is kept  # type: ignore[arg-type]


def test_ratios_by_hand() -> None:
    comparison = TrainingComparison(
        config=fit_config("edge", {"steps": 10}),
        n_images=16,
        hardware="a machine",
        ours=TrainingSpeed([1.0, 1.0, 2.0], [0.5] * 10, seconds_before=5.0),
        plain=TrainingSpeed([3.0, 2.0, 2.0], [0.5] * 10),
    )
    assert comparison.pair_ratios == [3.0, 2.0, 1.0]
    assert comparison.step_ratio == 2.0
    assert comparison.run_ratio == pytest.approx(20 / 15)
    assert "holds" in str(bar_of(comparison))
    assert "is 2, expected at least 1.80" in str(bar_of(comparison))
    slow = TrainingComparison(
        comparison.config, 16, "a machine", ours=comparison.plain, plain=comparison.ours
    )
    assert "FALLS SHORT" in str(bar_of(slow))
    assert [list(column.cells) for column in comparison_table(comparison).columns[:2]] == [
        ["plain loop", "train fit"],
        ["8.00", "16.00"],
    ]
