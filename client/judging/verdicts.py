"""What the server says of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS

SCORE_OUTPUTS = tuple(name for name in VERDICT_OUTPUTS if name not in MAP_OUTPUTS)  # a few bytes each


@dataclass(frozen=True)
class Score:
    """The answer to a request for the score alone.

    Attributes:
        score: mean of the anomaly map's highest values, or its maximum, as the release was calibrated.
        threshold: an image whose score exceeds it is anomalous.
        anomalous: the label.
        release_id: which weights judged it.
        latency_ms: from sending the request to having the answer, milliseconds.
    """

    score: float
    threshold: float
    anomalous: bool
    release_id: int
    latency_ms: float


@dataclass(frozen=True)
class Verdict(Score):
    """The whole answer, for an image whose side the server sees as S pixels.

    Attributes:
        anomaly_map: [S, S] float32.
        mask: [S, S] bool; where the anomaly exceeds the pixel threshold.
    """

    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
