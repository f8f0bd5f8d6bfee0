"""Measures of a judged test set: of all of it, of each defect kind, and of each defect size (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from model_repository.distance_fusion.map_fusion import Verdict
from train.data.category import TestImage
from train.evaluation.metrics import auroc, average_precision, f1, rate_interval
from train.evaluation.pixel_metrics import BoolArray, IntArray, PixelMeasures, PixelScores
from train.support.arrays import FloatArray

# Defect sizes by the share of defective pixels, and how they are called (Section 4.2).
SIZES = {"small": "under 5 %", "middle": "5 to 20 %", "large": "over 20 %"}
SMALL_BELOW, MIDDLE_UP_TO = 0.05, 0.20


@dataclass(frozen=True)
class GroundTruth:
    """What is known of test images: which show a defect, and where it is marked.

    Attributes:
        test: the N images.
        masks: [N, H, W] ground truth, all False where an image has no mask file; None where no image has one.
        shown: [N, H, W], False beside pictures that kept their shape, see `LoadedImages`; None where all fill theirs.
        inspected: [N, H, W], False where regions hide something, which counts for no pixel measure; None where none do.
    """

    test: tuple[TestImage, ...]
    masks: BoolArray | None
    shown: BoolArray | None = None
    inspected: BoolArray | None = None

    @cached_property
    def labels(self) -> BoolArray:
        """[N]: which images show a defect."""
        return np.array([image.anomalous for image in self.test], bool)

    @cached_property
    def counted(self) -> BoolArray | None:
        """The masks, without what regions hide of them."""
        return self.masks if self.masks is None or self.inspected is None else self.masks & self.inspected

    @cached_property
    def marked(self) -> BoolArray:
        """[N]: which defective images have a mask that marks something where it is inspected."""
        if self.counted is None:
            return np.zeros(len(self.test), bool)
        return self.counted.any(axis=(1, 2)) & self.labels

    @cached_property
    def outside(self) -> BoolArray:
        """[N]: which defective images have a mask that marks nothing but what regions hide."""
        if self.masks is None:
            return np.zeros(len(self.test), bool)
        return self.masks.any(axis=(1, 2)) & self.labels & ~self.marked

    @cached_property
    def unmasked(self) -> BoolArray:
        """[N]: which defective images have no mask file."""
        without_file = np.array([image.mask_path is None for image in self.test], bool)
        return without_file & self.labels & ~self.marked & ~self.outside

    @property
    def kinds(self) -> dict[str, IntArray]:
        """Positions of the images of each defect kind, by its name."""
        defects = np.array([image.defect for image in self.test])
        return {str(kind): np.flatnonzero(defects == kind) for kind in np.unique(defects[self.labels])}

    def pixel_scores(self, maps: FloatArray) -> PixelScores | None:
        """Pixels of anomaly maps [N, H, W], of the images whose defects are marked and of the good ones.

        None without masks.
        """
        if self.counted is None or not self.marked.any():
            return None
        shown = self.shown
        if self.inspected is not None:
            shown = self.inspected if shown is None else shown & self.inspected
        return PixelScores(maps, self.counted, good=np.flatnonzero(~self.labels), shown=shown)

    def measure_pixels(self, pixels: PixelScores | None, images: IntArray) -> PixelMeasures | None:
        """The measures of the defective images at these positions and of all good ones.

        None where one of the images has no mask: its defect would count as good pixels, and measures of the rest
        would be read as those of all.
        """
        if pixels is None or self.unmasked[images].any():
            return None
        return pixels.measure(images[self.marked[images]])


@dataclass(frozen=True)
class JudgedSet:
    """Test images with their verdict and ground truth.

    Attributes:
        test: the N images.
        verdict: of each of them, in their order.
        masks, shown: [N, H, W], see `GroundTruth`.
        inspected: [N, H, W], see `GroundTruth`.
    """

    test: tuple[TestImage, ...]
    verdict: Verdict
    masks: BoolArray | None
    shown: BoolArray | None = None
    inspected: BoolArray | None = None

    @cached_property
    def truth(self) -> GroundTruth:
        """The same images without the verdict."""
        return GroundTruth(self.test, self.masks, self.shown, self.inspected)

    @property
    def scores(self) -> FloatArray:
        """[N]: the image scores."""
        return self.verdict.pred_score[:, 0]

    @property
    def rejected(self) -> BoolArray:
        """[N]: which images were judged defective."""
        return self.verdict.pred_label[:, 0]

    @property
    def labels(self) -> BoolArray:
        """[N]: which images show a defect."""
        return self.truth.labels

    @property
    def marked(self) -> BoolArray:
        """[N]: which defective images have a mask that marks something."""
        return self.truth.marked

    @cached_property
    def pixels(self) -> PixelScores | None:
        """See `GroundTruth.pixel_scores`."""
        return self.truth.pixel_scores(self.verdict.anomaly_map)

    @property
    def sizes(self) -> dict[str, IntArray]:
        """Positions of the marked images of each defect size; sizes without images are left out."""
        if self.masks is None or self.truth.unmasked.any():
            return {}
        shares = self.masks.mean(axis=(1, 2))
        if self.shown is not None:
            shares = shares / self.shown.mean(axis=(1, 2))
        of_size = {
            "small": shares < SMALL_BELOW,
            "middle": (shares >= SMALL_BELOW) & (shares <= MIDDLE_UP_TO),
            "large": shares > MIDDLE_UP_TO,
        }
        marked = {size: np.flatnonzero(images & self.marked) for size, images in of_size.items()}
        return {size: images for size, images in marked.items() if len(images)}


def measures_of(judged: JudgedSet) -> dict[str, Any]:
    """The measures in metrics.json. One that cannot be computed is None, and a sentence in `unavailable` says why."""
    defective, good = np.flatnonzero(judged.labels), np.flatnonzero(~judged.labels)
    return {
        **subset_measures(judged, defective),
        **_rate("false_reject", int(judged.rejected[good].sum()), len(good)),
        **_rate("escape", int((~judged.rejected[defective]).sum()), len(defective)),
        "threshold": float(judged.verdict.threshold[0, 0]),
        "n_test": len(judged.test),
        "n_test_good": len(good),
        "n_test_anomalous": len(defective),
        "by_defect": _breakdown(judged, judged.truth.kinds),
        "by_size": _breakdown(judged, judged.sizes),
        "unavailable": unavailable(judged.truth),
    }


def subset_measures(judged: JudgedSet, images: IntArray) -> dict[str, float | None]:
    """The measures of the defective images at these positions against all good ones."""
    chosen = ~judged.labels
    chosen[images] = True
    scores, labels, rejected = judged.scores[chosen], judged.labels[chosen], judged.rejected[chosen]
    pixel = judged.truth.measure_pixels(judged.pixels, images)
    return {
        "image_auroc": auroc(scores, labels),
        "image_average_precision": average_precision(scores, labels),
        "image_f1": f1(rejected, labels),
        "pixel_auroc": pixel.auroc if pixel else None,
        "pixel_average_precision": pixel.average_precision if pixel else None,
        "pro": pixel.pro if pixel else None,
    }


def unavailable(truth: GroundTruth) -> list[str]:
    """Sentences on the measures that cannot be computed, or leave images out, and why."""
    sentences = []
    if truth.labels.all():
        sentences.append(
            "The test set has no good images: image AUROC, average precision, F1 and the false reject rate "
            "cannot be computed; put some into test/good."
        )
    if not truth.labels.any():
        return [
            "The test set has no defective images: image AUROC, average precision, F1, the escape rate and all pixel "
            "measures cannot be computed; put some into test/<defect kind>."
        ]
    if not truth.marked.any() and truth.unmasked.any():
        return [*sentences, "There are no masks: pixel measures and defect sizes cannot be computed."]
    for kind, images in truth.kinds.items():
        unmasked, outside = truth.unmasked[images], truth.outside[images]
        empty = ~truth.marked[images] & ~unmasked & ~outside
        if unmasked.any():
            sentences.append(
                f"{unmasked.sum()} of {_images(len(images))} of kind {kind} have no mask: pixel measures of this kind "
                f"and of the whole test set, and defect sizes cannot be computed; put them into ground_truth/{kind}."
            )
        if outside.any():
            first = truth.test[int(images[outside][0])].path.name
            sentences.append(
                f"{outside.sum()} of {_images(len(images))} of kind {kind} show defects that lie wholly outside the "
                f"regions to inspect, {kind}/{first} among them: pixel measures and defect sizes leave them out, the "
                "image measures count them as defective all the same."
            )
        if empty.any():
            first = truth.test[int(images[empty][0])].path.name
            sentences.append(
                f"{empty.sum()} of {_images(len(images))} of kind {kind} have a mask that marks nothing at this image "
                f"size, {kind}/{first} among them: pixel measures and defect sizes leave them out."
            )
    return sentences


def _breakdown(judged: JudgedSet, subsets: Mapping[str, IntArray]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "n_images": len(images),
            **subset_measures(judged, images),
            **_rate("escape", int((~judged.rejected[images]).sum()), len(images)),
        }
        for name, images in subsets.items()
    }


def _rate(name: str, count: int, total: int) -> dict[str, Any]:
    """A rate, its 95 % interval, and the count behind it."""
    interval = rate_interval(count, total)
    return {
        f"{name}_rate": count / total if total else None,
        f"{name}_interval": None if interval is None else list(interval),
        f"n_{name}s": count,
    }


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
