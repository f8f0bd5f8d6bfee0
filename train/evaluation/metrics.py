"""Measures of image scores and verdicts against labels (Section 4.1)."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from train.evaluation.pixel_metrics import BoolArray, areas_right_of, shares_above
from train.support.arrays import FloatArray, require_finite

UNMEASURED = "nothing can be measured by them; judge the images again"


def auroc(scores: FloatArray, labels: BoolArray) -> float | None:
    """Area under the ROC curve in 0..1 of scores [N], large for the anomalous; None where there is only one class.

    Raises:
        NotFiniteError: a score is NaN or infinite; NaN would sort as the highest.
    """
    require_finite(scores, what="AUROC: the scores", remedy=UNMEASURED)
    if labels.all() or not labels.any():
        return None
    above, at_least = shares_above(scores[labels], [np.sort(scores[~labels])])
    return float(areas_right_of(above, at_least, limit=1.0).mean())


def average_precision(scores: FloatArray, labels: BoolArray) -> float | None:
    """Mean over the anomalous of the precision at their own score, in 0..1, or None where there is only one class.

    Raises:
        NotFiniteError: a score is NaN or infinite.
    """
    require_finite(scores, what="Average precision: the scores", remedy=UNMEASURED)
    if labels.all() or not labels.any():
        return None
    anomalous, all_scores = np.sort(scores[labels]), np.sort(scores)
    true_positives = len(anomalous) - np.searchsorted(anomalous, anomalous)
    rejected = len(all_scores) - np.searchsorted(all_scores, anomalous)
    return float((true_positives / rejected).mean())


def f1(rejected: BoolArray, labels: BoolArray) -> float | None:
    """Harmonic mean of precision and recall of a verdict, in 0..1, or None where there is only one class."""
    if labels.all() or not labels.any():
        return None
    return float(2 * (rejected & labels).sum() / (rejected.sum() + labels.sum()))


def rate_interval(count: int, total: int) -> tuple[float, float] | None:
    """Clopper-Pearson interval that covers the true rate in at least 95 % of cases; None of a total of 0."""
    if total == 0:
        return None
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)
