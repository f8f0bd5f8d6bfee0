"""Distance maps to measure the fusion with, and what the server makes of a batch of them; numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    Scores,
    Verdict,
    fuse_distances,
    judge,
    judge_scores,
)


def calibration_of(size: int) -> Calibration:
    """The paper's smoothing for an image size."""
    return Calibration(
        release_id=1,
        category="bench",
        image_size=size,
        smoothing_sigma=4.0,
        pool_size=5,
        stage_weights=(0.2, 0.7, 2.1),
        image_threshold=0.5,
        pixel_threshold=0.25,
    )


def seeded_distances(size: int) -> list[NDArray[np.float32]]:
    """One image's distance maps [1, h, h] a stage, uniform in 0 to 4."""
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 4, (1, size // n, size // n)).astype(np.float32) for n in (4, 8, 16)]


def batch_distances(size: int, batch: int) -> list[NDArray[np.float32]]:
    """The same image's distance maps so many times over, [B, h, h] a stage."""
    return [np.repeat(stage, batch, axis=0) for stage in seeded_distances(size)]


def verdict_of(distances: list[NDArray[np.float32]], calibration: Calibration) -> Verdict:
    """What the server does of a batch, with maps."""
    return judge(fuse_distances(distances, calibration.fusion), calibration)


def score_batch(distances: list[NDArray[np.float32]], calibration: Calibration) -> Scores:
    """What the server does of a batch where the score alone is asked for."""
    return judge_scores(distances, calibration)
