"""What a judge answered about a test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What a judge answered about a test set.

    Attributes:
        judge: its name.
        precision: of its graphs or engines.
        files: SHA-256 by name of those that it judged with.
        maps: [N, H, W] anomaly maps; not finite where it could not judge.
        labels: [N] of its own; None where the maps alone decide.
        scores: [N] of its own, where `maps` are restored to images that were aligned; else None.
    """

    judge: str
    precision: str
    files: Mapping[str, str]
    maps: Maps
    labels: NDArray[np.bool_] | None = None
    scores: NDArray[np.float32] | None = None
