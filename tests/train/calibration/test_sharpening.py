"""How far images are sharpened: by what pasted patches say, on good images alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from train.calibration.sharpening import choose_sharpening
from train.config import FitConfig, fit_config
from train.method.backbones import Backbone
from train.method.student import load_teacher

CPU = torch.device("cpu")
Images = NDArray[np.uint8]


def config_of(sharpening: tuple[float, ...]) -> FitConfig:
    return fit_config(
        "edge", {"teacher": "test_resnet", "weights": "random", "image_size": 64, "sharpening": sharpening}
    )


def teacher_of(config: FitConfig) -> Backbone:
    return load_teacher(config, weights_dir=None)[0]


def strength_of(teacher: Backbone) -> float:
    """From the filter's middle: 1 + strength * (1 - 1/4)."""
    assert teacher.sharpening is not None
    return (float(teacher.sharpening.weight[0, 0, 1, 1]) - 1) / 0.75


def images_of(seen: NDArray[np.float64]) -> Images:
    return seen.clip(0, 255).repeat(3, axis=3).astype(np.uint8)


def noisy_stripes(count: int, *, seed: int) -> Images:
    """The same soft stripes each time, under noise of another level in each pixel."""
    noise = np.random.default_rng(seed).normal(size=(count, 64, 64, 1))
    stripes = gaussian_filter(((np.arange(64) // 4) % 2).astype(float), 1.0)[None, :, None, None]
    return images_of(100 + 120 * stripes + 20 * noise)


def soft_ground(count: int, *, seed: int) -> Images:
    """Spots that lie anyhow, without fine detail."""
    spots = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 64, 64, 1)), (0, 2, 2, 0))
    return images_of(128 + 40 * spots / spots.std())


@pytest.mark.parametrize("only", [0.0, 2.5])
def test_a_single_strength_is_taken_unseen(only: float) -> None:
    config = config_of((only,))
    teacher = teacher_of(config)
    images = noisy_stripes(4, seed=0)
    assert choose_sharpening(teacher, images, held_out=images[:2], config=config, device=CPU) == only
    assert teacher.sharpening is None if only == 0 else strength_of(teacher) == pytest.approx(only)


def test_with_very_few_images_it_is_the_first() -> None:
    config = config_of((3.0, 0.0))
    teacher = teacher_of(config)
    images = noisy_stripes(7, seed=0)
    assert choose_sharpening(teacher, images[:5], held_out=images[5:], config=config, device=CPU) == 3
    assert strength_of(teacher) == pytest.approx(3)


@pytest.mark.parametrize("n_held_out", [2, 8])  # few are crossed with the rest
@pytest.mark.parametrize(("images", "best"), [(soft_ground, 4.0), (noisy_stripes, 0.0)])
def test_the_strength_under_which_patches_stand_out_more_is_taken(
    images: Callable[..., Images], best: float, n_held_out: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fit_config("edge", {"image_size": 64})
    train, held_out = images(24, seed=1), images(n_held_out, seed=2)
    teacher = teacher_of(config)
    assert choose_sharpening(teacher, train, held_out=held_out, config=config, device=CPU) == best
    assert strength_of(teacher) == pytest.approx(best)
    assert f"Sharpening {best:g}: " in capsys.readouterr().err
    backwards = config.model_copy(update={"sharpening": (4.0, 0.0)})
    assert choose_sharpening(teacher, train, held_out=held_out, config=backwards, device=CPU) == best
