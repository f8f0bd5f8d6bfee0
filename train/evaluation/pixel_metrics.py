"""Pixel AUROC, average precision and per-region overlap: exact, and within the memory of a desk computer.

A ROC or PRO curve is the mean of one step for each defective pixel: 0 while the false positive rate is below the share
of good pixels that score higher than it, 1 from that rate on. The area under the curve is therefore the mean of the
areas under these steps. It takes the good pixels' scores in order (four bytes each) and one look-up among them for each
defective pixel; the curve itself is never built. PRO weights a pixel with 1 / size of its connected region.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from train.support.arrays import FloatArray, require_finite

MAX_FALSE_POSITIVE_RATE = 0.3  # where the PRO curve is cut off (Section 4.1)
IMAGES_AT_A_TIME = 64  # looked up together: bounds the memory when defects are large
EIGHT_NEIGHBOURS = np.ones((3, 3))
DoubleArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class PixelMeasures:
    """Measures over pixels, each in 0..1; `pro` is the per-region overlap, normalised to its limit."""

    auroc: float
    average_precision: float
    pro: float


@dataclass(frozen=True)
class PixelCurves:
    """Points of the ROC and the PRO curve, all [P] in 0..1, from the strictest threshold to the mildest."""

    false_positive_rate: DoubleArray
    true_positive_rate: DoubleArray
    overlap: DoubleArray


@dataclass(frozen=True)
class DefectivePixels:
    """The defective pixels of one image.

    Attributes:
        scores: [P] float32.
        region_sizes: [P] int32, pixels of the connected region that each belongs to.
        n_regions: how many regions there are.
    """

    scores: FloatArray
    region_sizes: NDArray[np.int32]
    n_regions: int


class PixelScores:
    """Pixels of judged images, ready to be measured in any selection of the defective images.

    Args:
        maps: [N, H, W] anomaly maps.
        masks: [N, H, W] ground truth.
        good: positions of the images that belong to every selection; nothing in them is defective.
        shown: [N, H, W], False on pixels beside the picture, which are left out; None where there are none.

    Raises:
        NotFiniteError: a map holds NaN or infinity.
    """

    def __init__(
        self, maps: FloatArray, masks: BoolArray, *, good: IntArray, shown: BoolArray | None = None
    ) -> None:
        require_finite(
            maps,
            what="Pixel measures: the anomaly maps",
            remedy="nothing can be measured by them; judge again",
        )
        self._maps, self._masks, self._shown = maps, masks, shown
        self._good_scores = self._sorted_outside_defects(good)
        self._defects: dict[int, DefectivePixels] = {}

    def measure(
        self, images: IntArray, *, max_false_positive_rate: float = MAX_FALSE_POSITIVE_RATE
    ) -> PixelMeasures | None:
        """Measure the images at these positions and the good ones; None where a class of pixels is missing."""
        defects = [self._defect(index) for index in images]
        n_defective = sum(len(defect.scores) for defect in defects)
        n_regions = sum(defect.n_regions for defect in defects)
        normals = (self._good_scores, self._sorted_outside_defects(images))
        n_normal = sum(map(len, normals))
        if not n_normal or not n_defective:
            return None
        defective_scores = np.sort(np.concatenate([defect.scores for defect in defects]))
        area = precision = overlap = 0.0
        for scores, region_sizes in _batches(defects):
            above, at_least = shares_above(scores, normals)
            area += float(areas_right_of(above, at_least, limit=1.0).sum())
            overlaps = areas_right_of(above, at_least, limit=max_false_positive_rate) / region_sizes
            overlap += float(overlaps.sum())
            true_positives = n_defective - np.searchsorted(defective_scores, scores)
            precision += float((true_positives / (true_positives + at_least * n_normal)).sum())
        return PixelMeasures(
            auroc=area / n_defective,
            average_precision=precision / n_defective,
            pro=overlap / n_regions / max_false_positive_rate,
        )

    def curves(self, images: IntArray, *, n_points: int = 300) -> PixelCurves | None:
        """Points of the curves of the images at these positions together with the good ones; None without a defect.

        There are `n_points` thresholds taken from the good images' pixels, and as many from the others', denser near a
        false positive rate of 0.
        """
        defects = [self._defect(index) for index in images]
        normals = [
            scores for scores in (self._good_scores, self._sorted_outside_defects(images)) if len(scores)
        ]
        n_regions = sum(defect.n_regions for defect in defects)
        if not normals or not n_regions:
            return None
        spacing = np.linspace(0, 1, n_points) ** 2
        picked = [scores[((1 - spacing) * (len(scores) - 1)).round().astype(int)] for scores in normals]
        thresholds = np.unique(np.concatenate(picked))
        n_thresholds = len(thresholds)
        passing, overlap = np.zeros(n_thresholds + 1), np.zeros(n_thresholds + 1)
        for scores, region_sizes in _batches(defects):
            n_passed = np.searchsorted(thresholds, scores, side="right")  # thresholds that the pixel reaches
            passing += np.bincount(n_passed, minlength=n_thresholds + 1)
            overlap += np.bincount(n_passed, 1 / region_sizes, minlength=n_thresholds + 1)
        _, at_least = shares_above(thresholds, normals)
        # At the k-th threshold the pixels count that reach more than k; the last point counts all of them.
        return PixelCurves(
            false_positive_rate=np.concatenate([[0.0], at_least[::-1], [1.0]]),
            true_positive_rate=np.concatenate([[0.0], np.cumsum(passing[::-1]) / passing.sum()]),
            overlap=np.concatenate([[0.0], np.cumsum(overlap[::-1]) / overlap.sum()]),
        )

    def _defect(self, index: int) -> DefectivePixels:
        """The defective pixels of an image, labelled once for all selections."""
        index = int(index)
        if index not in self._defects:
            self._defects[index] = defective_pixels(self._maps[index], self._masks[index])
        return self._defects[index]

    def _sorted_outside_defects(self, images: IntArray) -> FloatArray:
        """Scores of these images' good pixels in ascending order, copied once."""
        counts = [int(np.count_nonzero(self._good_pixels(index))) for index in images]
        scores = np.empty(sum(counts), np.float32)
        end = 0
        for index, count in zip(images, counts, strict=True):
            scores[end : end + count] = self._maps[index][self._good_pixels(index)]
            end += count
        scores.sort()
        return scores

    def _good_pixels(self, index: int) -> BoolArray:
        good: BoolArray = ~self._masks[index]
        if self._shown is not None:
            good &= self._shown[index]
        return good


def defective_pixels(anomaly_map: FloatArray, mask: BoolArray) -> DefectivePixels:
    """The defective pixels of one image, and the connected regions (8-neighbourhood) that they form."""
    regions, n_regions = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
    sizes = np.bincount(regions.ravel()).astype(np.int32)
    return DefectivePixels(
        scores=anomaly_map[mask].astype(np.float32, copy=False),
        region_sizes=sizes[regions[mask]],
        n_regions=n_regions,
    )


def shares_above(scores: FloatArray, normals: Sequence[FloatArray]) -> tuple[DoubleArray, DoubleArray]:
    """For each score the share of normal ones strictly above it, and the share at least as high.

    Args:
        scores: [P], quickest in ascending order.
        normals: scores of normal pixels or images in ascending order, in any number of arrays.
    """
    above, at_least = np.zeros(len(scores)), np.zeros(len(scores))
    for normal in normals:
        above += len(normal) - np.searchsorted(normal, scores, side="right")
        at_least += len(normal) - np.searchsorted(normal, scores, side="left")
    n_normal = sum(map(len, normals))
    return above / n_normal, at_least / n_normal


def areas_right_of(above: DoubleArray, at_least: DoubleArray, *, limit: float) -> DoubleArray:
    """Area under the curve of each item, from 0 to `limit` of the false positive rate: all arrays are [P].

    An item's curve is 0 up to the rate `above` and 1 from the rate `at_least` on. They differ where normal scores tie
    with the item's, and the curve between them is a straight line.
    """
    on_line = np.clip(limit, above, at_least) - above
    width = at_least - above
    triangle = np.divide(on_line**2, 2 * width, out=np.zeros_like(width), where=width > 0)
    area: DoubleArray = triangle + np.maximum(limit - at_least, 0)
    return area


def _batches(defects: Sequence[DefectivePixels]) -> Iterator[tuple[FloatArray, NDArray[np.int32]]]:
    """Scores in ascending order and their region sizes, of some images at a time."""
    for start in range(0, len(defects), IMAGES_AT_A_TIME):
        batch = defects[start : start + IMAGES_AT_A_TIME]
        scores = np.concatenate([defect.scores for defect in batch])
        order = np.argsort(scores)
        yield scores[order], np.concatenate([defect.region_sizes for defect in batch])[order]
