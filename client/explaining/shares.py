"""What each stage adds to a score.

An anomaly map is the sum of three maps, one a stage, and a score is the mean of the map's highest values. So the means
of the three maps over these very pixels sum to the score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-4  # of a score, and of a map's highest value: sums of 32-bit numbers in different orders


def score_pixels(anomaly_map: NDArray[np.float32], score: float) -> NDArray[np.intp]:
    """The pixels whose mean a score is, as indices into the flat map [H, W]: its highest ones, and as many as fit.

    How many a release takes only its calibration says; the mean of the highest values falls with their number, so the
    score tells.

    Raises:
        ValueError: the score is no mean of the map's highest values.
    """
    values = anomaly_map.ravel().astype(np.float64)
    order = np.argsort(-values, kind="stable")
    means = values[order].cumsum() / np.arange(1, len(values) + 1)
    n_highest = int(np.abs(means - score).argmin()) + 1
    if abs(means[n_highest - 1] - score) > ROUNDING * max(abs(score), values[order[0]], ROUNDING):
        raise ValueError(f"the score {score} is no mean of the highest values of its anomaly map")
    return order[:n_highest]


def contributions(
    stage_maps: NDArray[np.float32], anomaly_map: NDArray[np.float32], pixels: NDArray[np.intp]
) -> tuple[float, float, float]:
    """What each stage adds to the score: the means of its map [3, H, W] over the score's pixels.

    Raises:
        ValueError: the stages' maps do not sum to the anomaly map.
    """
    summed = stage_maps.sum(axis=0, dtype=np.float64)
    if np.abs(summed - anomaly_map).max() > ROUNDING * max(float(np.abs(anomaly_map).max()), ROUNDING):
        raise ValueError("the maps of the stages alone do not sum to the anomaly map")
    first, second, third = stage_maps.reshape(3, -1)[:, pixels].mean(axis=1, dtype=np.float64).tolist()
    return first, second, third


def maximum_of(anomaly_map: NDArray[np.float32], original_size: tuple[int, int]) -> tuple[int, int, float]:
    """Column and row of the highest value, in pixels of the original, and the value.

    The cell of the map [H, W] is as large as several pixels of a larger image; the one in its middle is given.
    """
    row, column = divmod(int(anomaly_map.argmax()), anomaly_map.shape[1])
    width, height = original_size
    x = int((column + 0.5) * width / anomaly_map.shape[1])
    y = int((row + 0.5) * height / anomaly_map.shape[0])
    return x, y, float(anomaly_map[row, column])
