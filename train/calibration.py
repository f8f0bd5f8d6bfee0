"""Thresholds and stage weights, fitted on good images held out from training; the test set is never used."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances, remove_background
from train.config import FitConfig
from train.progress import console

FloatArray = NDArray[np.float32]


def fit_calibration(
    distances: list[FloatArray],
    *,
    config: FitConfig,
    category: str,
    foreground: NDArray[np.bool_] | None = None,
    foreground_id: int = 0,
) -> Calibration:
    """Fit a category's calibration on the distance maps of its held-out good images.

    Args:
        distances: [N, h, h] float32 a stage.
        config: smoothing, the way stages are weighted and the target false-reject rate.
        category: the product's name.
        foreground: [N, S, S] bool masks of the parts, where the background is removed. The thresholds are fitted on
            masked maps; the weights of the stages on whole ones, so that a mask changes nothing but what it hides.
        foreground_id: which SAM found them.

    Returns:
        A calibration whose `release_id` is still 0; the checkpoint gives it.
    """
    weights = (1.0, 1.0, 1.0)
    if config.stage_weighting == "good_maximum":
        weights = _good_maximum_weights(distances, config, category)
    unset = _calibration(config, category, weights, image_threshold=math.inf, pixel_threshold=math.inf)
    maps = remove_background(fuse_distances(distances, unset), foreground)
    return _calibration(
        config,
        category,
        weights,
        image_threshold=image_threshold(maps.max(axis=(1, 2)), config.false_reject_rate),
        pixel_threshold=float(np.quantile(maps, 1 - config.false_reject_rate)),
        foreground_id=foreground_id,
    )


def image_threshold(good_scores: FloatArray, false_reject_rate: float) -> float:
    """The score that a new good image exceeds with at most the asked probability.

    It is the k-th smallest of n held-out scores with k = ceil((n + 1) * (1 - rate)), the conformal
    quantile. With fewer than 1 / rate - 1 images there is no such k: the largest score is taken, and the
    rate that this gives, 1 / (n + 1), is said.
    """
    n_images = len(good_scores)
    rank = math.ceil(round((n_images + 1) * (1 - false_reject_rate), 9))
    if rank > n_images:
        console.print(
            f"{n_images} held-out good images promise a false-reject rate of {1 / (n_images + 1):.1%}; "
            f"for {false_reject_rate:.1%} hold out {math.ceil(1 / false_reject_rate) - 1}.",
            style="yellow",
        )
    return float(np.sort(good_scores)[min(rank, n_images) - 1])


def _good_maximum_weights(
    distances: list[FloatArray], config: FitConfig, category: str
) -> tuple[float, float, float]:
    """One over each stage's mean maximum, so that no stage drowns the others; they sum to 3 as equal ones do."""
    inverse = []
    for stage in range(3):
        alone = [0.0, 0.0, 0.0]
        alone[stage] = 1.0
        weights = (alone[0], alone[1], alone[2])
        single = _calibration(config, category, weights, image_threshold=math.inf, pixel_threshold=math.inf)
        inverse.append(1 / max(float(fuse_distances(distances, single).max(axis=(1, 2)).mean()), 1e-12))
    first, second, third = (3 * value / sum(inverse) for value in inverse)
    return first, second, third


def _calibration(
    config: FitConfig,
    category: str,
    stage_weights: tuple[float, float, float],
    *,
    image_threshold: float,
    pixel_threshold: float,
    foreground_id: int = 0,
) -> Calibration:
    return Calibration(
        release_id=0,
        category=category,
        image_size=config.image_size,
        smoothing_sigma=config.smoothing_sigma,
        pool_size=config.pool_size,
        stage_weights=stage_weights,
        image_threshold=image_threshold,
        pixel_threshold=pixel_threshold,
        foreground=config.foreground,
        foreground_id=foreground_id,
    )
