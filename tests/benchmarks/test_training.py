"""Both training loops are the same training: same images, same masks, same losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import CategoryData, load_images
from train.fitting.bench import TrainingComparison, TrainingSpeed, compare_training_speed, verdict


def test_both_loops_go_through_the_same_losses(tiny_data: CategoryData, tmp_path: Path) -> None:
    config = fit_config("edge", TINY_OPTIONS | {"steps": 12})
    images = load_images(tiny_data.train_good, image_size=config.image_size, strict=True).pixels
    comparison = compare_training_speed(
        config,
        images,
        weights_dir=None,
        device=torch.device("cpu"),
        round_steps=4,
        rounds=2,
        scratch_dir=tmp_path,
    )
    assert len(comparison.ours.losses) == len(comparison.plain.losses) == 12
    assert comparison.ours.losses == pytest.approx(comparison.plain.losses, rel=1e-3)
    assert comparison.ours.losses[-1] < comparison.ours.losses[0]
    assert len(comparison.pair_ratios) == 2
    assert comparison.ours.seconds_before > 0


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
    assert "2.00 times" in verdict(comparison)
    assert "target 1.8: met" in verdict(comparison)
    slow = TrainingComparison(
        comparison.config, 16, "a machine", ours=comparison.plain, plain=comparison.ours
    )
    assert "FALLS SHORT" in verdict(slow)
