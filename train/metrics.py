"""Image and pixel AUROC, and the per-region overlap (Section 4.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


def auroc(scores: FloatArray, labels: BoolArray) -> float | None:
    """Area under the ROC curve in 0..1, or None where there is only one class.

    Args:
        scores: any shape; larger is more anomalous.
        labels: the same shape.
    """
    if labels.all() or not labels.any():
        return None
    return float(roc_auc_score(labels.ravel(), scores.ravel()))


def per_region_overlap(
    maps: FloatArray, masks: BoolArray, *, max_false_positive_rate: float = 0.3
) -> float | None:
    """Normalised area under the PRO curve (Bergmann et al. 2021), or None where a class of pixels is missing.

    The curve sets the mean share found of each connected defect region (8-neighbourhood) against the share
    of good pixels called defective, over all thresholds. Each defective pixel weighs one over its region's size, which
    makes the curve exact from one sort of all pixels.

    Args:
        maps: [N, S, S] anomaly maps.
        masks: [N, S, S] ground truth.
        max_false_positive_rate: where the curve is cut off.

    Returns:
        0..1.
    """
    if masks.all() or not masks.any():
        return None
    overlap_weight = _overlap_weights(masks).ravel()
    order = np.argsort(-maps.ravel(), kind="stable")
    scores = maps.ravel()[order]
    overlap = np.cumsum(overlap_weight[order])
    false_positive_rate = np.cumsum(~masks.ravel()[order]) / np.count_nonzero(~masks)
    # Pixels of one score cross a threshold together.
    last_of_score = np.append(scores[1:] != scores[:-1], True)
    overlap = np.concatenate([[0.0], overlap[last_of_score]])
    false_positive_rate = np.concatenate([[0.0], false_positive_rate[last_of_score]])
    return _area_until(false_positive_rate, overlap, max_false_positive_rate) / max_false_positive_rate


def _overlap_weights(masks: BoolArray) -> NDArray[np.float64]:
    """[N, S, S]: 1 / (pixels of its region * number of regions) in a region, 0 outside; they sum to 1."""
    weights = np.zeros(masks.shape)
    n_regions = 0
    for index, mask in enumerate(masks):
        regions, n_found = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(regions.ravel())
        weights[index] = np.where(regions > 0, 1 / sizes[regions], 0)
        n_regions += n_found
    return weights / n_regions


def _area_until(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Trapezoidal area under y(x) from 0 to `limit`, the last trapezoid cut at the limit."""
    inside = x <= limit
    y_at_limit = np.interp(limit, x, y)
    return float(np.trapezoid(np.append(y[inside], y_at_limit), np.append(x[inside], limit)))
