"""Measures over the server's verdicts, where folders tell what the images are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.core.errors import ClientError
from client.predictions.prediction import Prediction


@dataclass(frozen=True)
class ServedMeasures:
    """Measures over the server's verdicts; None where there are no good or no defective images.

    `synthetic`: the judge was trained on rendered images.
    """

    n_images: int
    n_good: int
    n_anomalous: int
    auroc: float | None
    false_reject_rate: float | None
    escape_rate: float | None
    release_ids: list[int]
    thresholds: list[float]
    synthetic: bool

    @property
    def counts(self) -> str:
        """How many images were judged, and what they really are."""
        n_unknown = self.n_images - self.n_good - self.n_anomalous
        unknown = f", {n_unknown} unknown" if n_unknown else ""
        return f"{self.n_images} ({self.n_good} good, {self.n_anomalous} defective{unknown})"


def measure(predictions: Sequence[Prediction]) -> ServedMeasures:
    """Measure predictions whose folders tell what the images are.

    Raises:
        ClientError: no predictions.
    """
    if not predictions:
        raise ClientError("There are no predictions to report on; ask about images that can be read.")
    known = [entry for entry in predictions if entry.defect is not None]
    scores = np.array([entry.score for entry in known])
    defective = np.array([entry.defect != "good" for entry in known], bool)
    rejected = np.array([entry.anomalous for entry in known], bool)
    return ServedMeasures(
        n_images=len(predictions),
        n_good=int((~defective).sum()),
        n_anomalous=int(defective.sum()),
        auroc=auroc(scores, defective),
        false_reject_rate=float(rejected[~defective].mean()) if (~defective).any() else None,
        escape_rate=float((~rejected[defective]).mean()) if defective.any() else None,
        release_ids=sorted({entry.release_id for entry in predictions}),
        thresholds=sorted({entry.threshold for entry in predictions}),
        synthetic=any(entry.synthetic for entry in predictions),
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Share of (positive, negative) pairs in which the positive scores higher, ties counted half.

    This is the area under the ROC curve; scikit-learn, too heavy for a PC at the line, agrees in the tests.

    Raises:
        ClientError: a score is not finite, which would count as the highest.
    """
    if not np.isfinite(scores).all():
        raise ClientError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; no AUROC can be computed."
        )
    if positive.all() or not positive.any():
        return None
    negatives = np.sort(scores[~positive])
    below = np.searchsorted(negatives, scores[positive], side="left")
    not_above = np.searchsorted(negatives, scores[positive], side="right")
    return float((below + not_above).mean() / 2 / len(negatives))
