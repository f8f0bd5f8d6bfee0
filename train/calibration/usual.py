"""What good images usually give: their scores, and what each stage contributes to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    n_scored,
    remove_background,
)
from train.checkpoint.provenance import Spread, UsualScores
from train.support.arrays import FloatArray

POINTS = (0, 0.05, 0.5, 0.95, 1)
DIGITS = 6
AT_ONCE = 16  # images whose maps are in memory


def usual_scores(
    distances: list[FloatArray], calibration: Calibration, foreground: NDArray[np.bool_] | None
) -> UsualScores:
    """Scores of good images held out from training, and the stages' contributions.

    The fusion is linear: the maps that it makes of each stage alone sum to the anomaly map, and so do their means over
    the pixels whose mean is the score.

    Args:
        distances: [N, h, w] float32 a stage, N at least 1.
        calibration: that judges.
        foreground: [N, H, W] bool masks of the parts, where the background is removed.
    """
    parts = [
        _contributions(
            [stage[start : start + AT_ONCE] for stage in distances],
            calibration,
            None if foreground is None else foreground[start : start + AT_ONCE],
        )
        for start in range(0, len(distances[0]), AT_ONCE)
    ]
    contributions = np.concatenate(parts, axis=1)
    stage_1, stage_2, stage_3 = map(_spread, contributions)
    return UsualScores(
        n_images=contributions.shape[1],
        score=_spread(contributions.sum(axis=0)),
        stages=(stage_1, stage_2, stage_3),
    )


def _contributions(
    distances: list[FloatArray], calibration: Calibration, foreground: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """[3, N]: what each stage adds to the score of each image."""
    first, second, third = calibration.stage_weights
    maps = [
        remove_background(
            fuse_distances(distances, replace(calibration.fusion, stage_weights=weights)),
            foreground,
            calibration.regions,
        )
        for weights in ((first, 0.0, 0.0), (0.0, second, 0.0), (0.0, 0.0, third))
    ]
    flat = np.stack(maps).reshape(3, len(maps[0]), -1)
    n_highest = n_scored(flat.shape[2], calibration.score_share, calibration.score_pixels)
    highest = np.argpartition(flat.sum(axis=0), -n_highest, axis=1)[:, -n_highest:]
    return np.asarray(np.take_along_axis(flat, highest[None], axis=2).mean(axis=2, dtype=np.float64))


def _spread(values: NDArray[np.float64]) -> Spread:
    least, low, median, high, most = np.quantile(values, POINTS).round(DIGITS).tolist()
    return Spread(least=least, low=low, median=median, high=high, most=most)
