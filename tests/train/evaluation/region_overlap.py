"""PRO of some maps, for comparisons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.evaluation.pixel_metrics import PixelScores


def per_region_overlap(
    maps: NDArray[np.float32], masks: NDArray[np.bool_], *, max_false_positive_rate: float = 0.3
) -> float | None:
    pixels = PixelScores(maps, masks, good=np.arange(0))
    measures = pixels.measure(np.arange(len(maps)), max_false_positive_rate=max_false_positive_rate)
    return None if measures is None else measures.pro
