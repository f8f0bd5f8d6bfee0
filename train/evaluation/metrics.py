"""Measures of scores against labels: of images, and of pixels where the scores are maps (Section 4.1)."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from train.evaluation.pixel_metrics import BoolArray, PixelScores, areas_right_of, shares_above
from train.support.arrays import FloatArray


def auroc(scores: FloatArray, labels: BoolArray) -> float | None:
    """Area under the ROC curve in 0..1, or None where there is only one class.

    Args:
        scores: any shape; larger is more anomalous.
        labels: the same shape.
    """
    if labels.all() or not labels.any():
        return None
    above, at_least = shares_above(scores[labels], [np.sort(scores[~labels])])
    return float(areas_right_of(above, at_least, limit=1.0).mean())


def average_precision(scores: FloatArray, labels: BoolArray) -> float | None:
    """Mean over the anomalous of the precision at their own score, in 0..1, or None where there is only one class.

    Args:
        scores: [N]; larger is more anomalous.
        labels: [N].
    """
    if labels.all() or not labels.any():
        return None
    anomalous, all_scores = np.sort(scores[labels]), np.sort(scores)
    true_positives = len(anomalous) - np.searchsorted(anomalous, anomalous)
    rejected = len(all_scores) - np.searchsorted(all_scores, anomalous)
    return float((true_positives / rejected).mean())


def f1(rejected: BoolArray, labels: BoolArray) -> float | None:
    """Harmonic mean of precision and recall of a verdict, in 0..1, or None where there is only one class.

    Args:
        rejected: [N] which were judged anomalous.
        labels: [N] which are.
    """
    if labels.all() or not labels.any():
        return None
    return float(2 * (rejected & labels).sum() / (rejected.sum() + labels.sum()))


def rate_interval(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float] | None:
    """Clopper-Pearson interval of a rate, which covers the true rate with at least `confidence`; None of a total of 0.

    Args:
        count: how many cases.
        total: out of how many.
        confidence: 0..1.
    """
    if total == 0:
        return None
    interval = binomtest(count, total).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def per_region_overlap(
    maps: FloatArray, masks: BoolArray, *, max_false_positive_rate: float = 0.3
) -> float | None:
    """Normalised area under the PRO curve (Bergmann et al. 2021), or None where a class of pixels is missing.

    The curve sets the mean share found of each connected defect region (8-neighbourhood) against the share
    of good pixels called defective, over all thresholds.

    Args:
        maps: [N, S, S] anomaly maps.
        masks: [N, S, S] ground truth.
        max_false_positive_rate: where the curve is cut off.

    Returns:
        0..1.
    """
    pixels = PixelScores(maps, masks, good=np.arange(0))
    measures = pixels.measure(np.arange(len(maps)), max_false_positive_rate=max_false_positive_rate)
    return None if measures is None else measures.pro
