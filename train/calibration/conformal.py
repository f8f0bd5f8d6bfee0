"""What a new good image exceeds with at most a chosen probability, by the values of held-out good images.

It loads no torch: a server's threshold is set anew by it too (`python -m deploy retune`).
"""

from __future__ import annotations

import math

import numpy as np

from train.support.arrays import FloatArray


def conformal_quantile(values: FloatArray, rate: float) -> float:
    """What a new image's value exceeds with at most the probability asked for.

    It is the k-th smallest of n values of held-out images, see `conformal_rank`, and the largest where k exceeds n.
    """
    rank = min(conformal_rank(len(values), rate), len(values))
    return float(np.sort(values)[rank - 1])


def conformal_rank(n_images: int, rate: float) -> int:
    """k = ceil((n + 1) * (1 - rate)), from 1; beyond n there are too few images for the rate."""
    return math.ceil(round((n_images + 1) * (1 - rate), 9))
