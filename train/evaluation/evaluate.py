"""Judge the test set with the server's own fusion, and measure how well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model_repository.distance_fusion.fusion_regions import Regions, inspected_pixels
from model_repository.distance_fusion.fusion_shown import hide_beside, within_picture
from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    image_scores,
    judge,
    remove_background,
)
from model_repository.image_size import image_size
from train.calibration.foreground import ForegroundFinder, find_foreground, load_foreground
from train.calibration.thresholds import require_something_left
from train.checkpoint.tensors import Checkpoint
from train.config import FitConfig
from train.data.bit_depth import warn_of_8_bits
from train.data.category import CategoryData, TestImage
from train.data.ground_truth import load_masks
from train.data.pictures.loaded import LoadedImages
from train.data.pictures.loading import load_images
from train.data.regions import require_drawn_shape
from train.data.shapes import read_shapes
from train.evaluation import METRICS_FORMAT
from train.evaluation.aligned import as_sent, masks_as_sent
from train.evaluation.breakdown import JudgedSet, measures_of
from train.evaluation.metrics import auroc
from train.evaluation.pixel_metrics import EIGHT_NEIGHBOURS, BoolArray
from train.evaluation.protocol import deviations_from_paper
from train.method.judging import compute_distances
from train.support.arrays import FloatArray
from train.support.devices import Runtime
from train.support.files import readable_text


@dataclass(frozen=True)
class Evaluation:
    """A judged test set.

    Attributes:
        metrics: the content of metrics.json.
        judged: the test images that could be read, and their verdicts.
        pixels: [N, H, W, 3] uint8, those images.
    """

    metrics: dict[str, Any]
    judged: JudgedSet
    pixels: NDArray[np.uint8]


def compute_maps(
    checkpoint: Checkpoint,
    images: NDArray[np.uint8],
    *,
    device: torch.device,
    what: str,
    shown: BoolArray | None = None,
) -> FloatArray:
    """Anomaly maps [N, H, W] of images, before the background is removed; see `compute_distances`, `judged_pixels`."""
    checkpoint.teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    distances = compute_distances(
        checkpoint.teacher,
        checkpoint.student,
        images,
        scale=checkpoint.config.distance_scale,
        device=device,
        what=what,
    )
    return fuse_distances(hide_beside(distances, shown), checkpoint.calibration.fusion)


def judged_pixels(calibration: Calibration, images: LoadedImages) -> BoolArray | None:
    """[N, H, W]: the pixels that show the pictures, where a calibration counts these alone; None for all of them."""
    return images.shown if calibration.picture_only else None


def evaluate(
    checkpoint: Checkpoint,
    data: CategoryData,
    *,
    runtime: Runtime,
    foreground: ForegroundFinder | None = None,
) -> Evaluation | None:
    """Judge a category's test set; None where it has none. Without a foreground, the checkpoint's own is loaded.

    Raises:
        DataError: no test image, or a mask, can be read, or a mask contradicts its image.
        WeightsError: another SAM than the calibration's.
    """
    if not data.test:
        return None
    foreground = foreground or load_foreground(checkpoint.config.foreground, weights_dir=runtime.weights_dir)
    foreground.require_calibrated_with(checkpoint.calibration)
    device = runtime.torch_device
    judged_on = describe_test_set(data)  # of the files as they are now, not after the minutes of judging
    images, test, masks = _read_test_set(checkpoint, data, strict=runtime.strict)
    shown, regions = judged_pixels(checkpoint.calibration, images), checkpoint.calibration.regions
    whole_map = compute_maps(checkpoint, images.pixels, device=device, what="Evaluation", shown=shown)
    parts = find_foreground(images.pixels, foreground, device=device)
    counted = within_picture(parts, shown)
    require_something_left(counted, regions, what="test images")
    verdict = judge(remove_background(whole_map, counted, regions), checkpoint.calibration)
    inspected = inspected_of(regions, images)
    images, verdict, parts = as_sent(images, verdict, parts)
    judged = JudgedSet(test, verdict, masks, images.shown, inspected)
    # Of the same maps, for Table 9.
    whole_map = remove_background(whole_map, shown, regions)
    scores = image_scores(whole_map, checkpoint.calibration.score_share, checkpoint.calibration.score_pixels)
    with_background = None if parts is None else auroc(scores, judged.labels)
    metrics = {
        "format": METRICS_FORMAT,
        **judged_on,
        "synthetic": data.synthetic or checkpoint.provenance.synthetic,
        **measures_of(judged),
        **describe(checkpoint),
        "pixel_false_positive_rate": marked_share_of_good(judged, parts),
        "foreground": foreground.method,
        "foreground_share": None if parts is None else float(parts.mean()),
        "image_auroc_without_foreground": with_background,
        "n_broken": len(images.broken),
        **describe_regions(checkpoint, judged),
        **({} if checkpoint.reference is None else {"aligned": True}),
    }
    return Evaluation(metrics, judged, images.pixels)


def _read_test_set(
    checkpoint: Checkpoint, data: CategoryData, *, strict: bool
) -> tuple[LoadedImages, tuple[TestImage, ...], BoolArray | None]:
    """A test set as the checkpoint takes it: pictures, which they are, and masks, where there are any.

    A wrong mask stops here, before the long part.
    """
    config, bit_depth = checkpoint.config, checkpoint.provenance.bit_depth
    paths = [image.path for image in data.test]
    if bit_depth != 8:
        warn_of_8_bits(paths, bit_depth, category=data.category, what="test")
    require_regions_hold_for(paths, config, category=data.category)
    images = load_images(
        paths,
        image_size=config.image_size,
        strict=strict,
        bit_depth=bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        what="test images",
        reference=checkpoint.reference,
    )
    test = tuple(data.test[index] for index in images.readable)
    masks = load_masks(
        test,
        image_size=image_size(*images.pixels.shape[1:3]),
        keep_aspect=checkpoint.provenance.keep_aspect,
        native=config.is_native,
    )
    return images, test, masks


def describe_test_set(data: CategoryData) -> dict[str, Any]:
    """What was judged: data set, folder and fingerprint of the test images."""
    test_fingerprint = data.test_fingerprint()
    return {
        "dataset": data.dataset,
        "judged_on": {
            "dataset": data.dataset,
            "synthetic": data.synthetic,
            "data_root": readable_text(data.root),
            "test_fingerprint": test_fingerprint,
        },
        "test_fingerprint": test_fingerprint,
    }


def require_regions_hold_for(paths: list[Path], config: FitConfig, *, category: str) -> None:
    """Make sure that test pictures are of the shape that regions are drawn on, where there are any; see there."""
    if config.regions is not None:
        require_drawn_shape(config, read_shapes(paths), what=f"test pictures of {category!r}")


def inspected_of(regions: Regions | None, images: LoadedImages) -> BoolArray | None:
    """[N, H, W]: which pixels are inspected of each image as it was sent; None for all of them."""
    if regions is None:
        return None
    shape = images.pixels.shape[:3]
    inspected = np.broadcast_to(inspected_pixels(regions, shape[1:]), shape)
    return masks_as_sent(images, inspected)


def describe_regions(checkpoint: Checkpoint, judged: JudgedSet) -> dict[str, Any]:
    """Where the images were inspected, and what of the ground truth lies elsewhere; empty where all was inspected."""
    drawn, inspected, masks = checkpoint.config.regions, judged.inspected, judged.masks
    if drawn is None or inspected is None:
        return {}
    n_defects = n_outside = 0
    for mask, seen in (
        () if masks is None else zip(masks[judged.labels], inspected[judged.labels], strict=True)
    ):
        defects, count = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
        n_defects += count
        n_outside += count - len(np.unique(defects[mask & seen]))
    return {
        "regions": {
            **drawn.model_dump(mode="json"),
            "inspected_share": float(inspected.mean()),
            "n_defects": n_defects,
            "n_defects_outside": n_outside,
        }
    }


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was judged with: category, training images, preset, seed, release id."""
    provenance = checkpoint.provenance
    trained_on = {"dataset", "synthetic", "data_root", "data_fingerprint"}
    return {
        **provenance.model_dump(
            include={"category", "data_fingerprint", "weights", "n_train", "n_held_out", "seconds_train"}
        ),
        "trained_on": provenance.model_dump(include=trained_on),
        **checkpoint.config.model_dump(include={"preset", "image_size", "seed"}),
        "release_id": checkpoint.release_id,
        "deviations_from_paper": deviations_from_paper(checkpoint.config, checkpoint.provenance),
    }


def marked_share_of_good(judged: JudgedSet, parts: BoolArray | None) -> float | None:
    """Mean share, over the good images, of a part's pixels that the verdict marks; None without good images.

    All pixels of a picture count as the part where there are no `parts` [N, H, W].
    """
    good = ~judged.labels
    if not good.any():
        return None
    marked = judged.verdict.pred_mask[good]
    part = np.ones_like(marked) if parts is None else parts[good]
    for counted in (judged.shown, judged.inspected):
        part = part if counted is None else part & counted[good]
    shares = (marked & part).sum(axis=(1, 2)) / part.sum(axis=(1, 2)).clip(1)
    return float(shares.mean())
