"""Why an image was judged as it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.core.verdicts import Verdict
from client.explaining.usual import Usual

DIGITS = 6  # of figures in JSON that are means or distances


@dataclass(frozen=True)
class Stage:
    """One of the three stages of the networks.

    Attributes:
        number: 1, 2 or 3, from fine to coarse.
        distances: [h, w] float32, how far the student is from the teacher at each position; 0 where they agree.
        contribution: what the stage adds to the score; the three sum to it.
        share: of the score, 0..1; 0 for a score of 0.
    """

    number: int
    distances: NDArray[np.float32]
    contribution: float
    share: float


@dataclass(frozen=True)
class Maximum:
    """Where the anomaly map is highest: column and row, in pixels of the original, and the value there."""

    x: int
    y: int
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why an image was judged as it was.

    Attributes:
        image: the file.
        category: the product.
        synthetic: the judge was trained on rendered images.
        verdict: the ensemble's.
        maximum: where the anomaly map is highest.
        n_score_pixels: the score is the mean of so many pixels of the map, the highest ones; 1: the maximum.
        stages: the three, from fine to coarse.
        usual: what good images give; None where the release does not say.
    """

    image: str
    category: str
    synthetic: bool
    verdict: Verdict
    maximum: Maximum
    n_score_pixels: int
    stages: tuple[Stage, Stage, Stage]
    usual: Usual | None

    def to_json(self) -> str:
        """All of it as JSON text, the distance maps row by row; ASCII, whatever the file's name."""
        verdict = self.verdict
        values = {
            "image": self.image,
            "category": self.category,
            "release_id": verdict.release_id,
            "synthetic": self.synthetic,
            "score": verdict.score,
            "threshold": verdict.threshold,
            "anomalous": verdict.anomalous,
            "original_size": list(verdict.original_size),
            "maximum": asdict(self.maximum),
            "score_pixels": self.n_score_pixels,
            "stages": [_stage_values(stage) for stage in self.stages],
            "usual": None if self.usual is None else asdict(self.usual),
            "defects": [defect.to_dict() for defect in verdict.defects],
        }
        return json.dumps(values, allow_nan=False) + "\n"


def _stage_values(stage: Stage) -> dict[str, Any]:
    return {
        "stage": stage.number,
        "contribution": stage.contribution,
        "share": stage.share,
        "distance_minimum": float(stage.distances.min()),
        "distance_maximum": float(stage.distances.max()),
        "distance_mean": float(stage.distances.mean(dtype=np.float64)),
        "distances": [[float(f"{value:.{DIGITS}g}") for value in row] for row in stage.distances.tolist()],
    }
