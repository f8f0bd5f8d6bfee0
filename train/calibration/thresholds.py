"""Thresholds, fitted on good images held out from training; the test set is never used."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.distance_fusion.fusion_regions import Regions, inspected_pixels
from model_repository.distance_fusion.fusion_shown import hide_beside, within_picture
from model_repository.distance_fusion.map_fusion import Calibration, image_scores, remove_background
from model_repository.image_size import height_width
from train.calibration.conformal import conformal_quantile, conformal_rank
from train.calibration.foreground import ForegroundFinder, find_foreground
from train.calibration.pasting import COPIES, paste_patches
from train.calibration.usual import usual_scores
from train.calibration.weighing import cross_fused, fusion_of, most_pasted, stage_weights
from train.checkpoint.provenance import UsualScores
from train.config import FitConfig
from train.data.regions import map_regions
from train.errors import RegionsError
from train.method.backbones import Backbone
from train.method.judging import compute_distances
from train.method.student import Student
from train.support.arrays import FloatArray
from train.support.progress import console

WITHOUT_NETWORK = ForegroundFinder("threshold")


class Calibrated(NamedTuple):
    """A calibration, and what the images that it was fitted on give."""

    calibration: Calibration
    usual: UsualScores


class HeldOut(NamedTuple):
    """What a calibration is fitted on; for the arrays see `fit_calibration`.

    Attributes:
        distances, pasted, parts, regions: see there.
        foreground: the same, where it shows the picture.
        shown: see `look_at`.
    """

    distances: list[FloatArray]
    pasted: list[FloatArray] | None
    foreground: NDArray[np.bool_] | None
    parts: NDArray[np.bool_] | None
    regions: Regions | None = None
    shown: NDArray[np.bool_] | None = None


def calibrate(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    config: FitConfig,
    category: str,
    finder: ForegroundFinder,
    device: torch.device,
    shown: NDArray[np.bool_] | None = None,
) -> Calibrated:
    """Fit the calibration of trained networks on good images [N, H, W, 3] uint8 held out from training.

    Both networks are on the device; for `shown` see `look_at`, for the rest `fit_calibration`.
    """
    held_out = look_at(teacher, student, images, config=config, finder=finder, device=device, shown=shown)
    calibration = fit_calibration(
        held_out.distances,
        config=config,
        category=category,
        pasted=held_out.pasted,
        foreground=held_out.foreground,
        foreground_id=finder.id,
        parts=held_out.parts,
        regions=held_out.regions,
        picture_only=held_out.shown is not None,
    )
    return Calibrated(calibration, usual_scores(held_out.distances, calibration, held_out.foreground))


def look_at(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    config: FitConfig,
    finder: ForegroundFinder,
    device: torch.device,
    shown: NDArray[np.bool_] | None = None,
) -> HeldOut:
    """What a calibration needs of held-out good images; see `calibrate`.

    Where images are filled up or aligned, `shown` [N, H, W] is False where one does not show its picture: what lies
    there counts nowhere, see `model_repository.distance_fusion.fusion_shown`.
    """

    def distances_of(
        pixels: NDArray[np.uint8], seen: NDArray[np.bool_] | None, what: str
    ) -> list[FloatArray]:
        scale = config.distance_scale
        whole = compute_distances(teacher, student, pixels, scale=scale, device=device, what=what)
        return hide_beside(whole, seen)

    pasted = None
    if config.stage_weighting == "pasted_defects":
        few = images[: most_pasted(images.shape[1:3])]
        # As large as in a crop: in a whole picture a share of it would be no defect but half a part.
        within = height_width(config.crop_size) if config.is_native else None
        copies = paste_patches(few, seed=config.seed, within=within)
        of_copies = None if shown is None else np.tile(shown[: len(few)], (COPIES, 1, 1))
        pasted = distances_of(copies, of_copies, "Weighing the stages")
    foreground = within_picture(find_foreground(images, finder, device=device), shown)
    # Where the background stays, the part is looked for all the same: for the pixel threshold alone.
    parts = foreground
    if finder.method == "none":
        parts = within_picture(find_foreground(images, WITHOUT_NETWORK, device=device), shown)
    regions = map_regions(config, keep_aspect=shown is not None)
    require_something_left(foreground, regions, what="held-out good images")
    return HeldOut(distances_of(images, shown, "Calibration"), pasted, foreground, parts, regions, shown)


def require_something_left(
    foreground: NDArray[np.bool_] | None, regions: Regions | None, *, what: str
) -> None:
    """Make sure that regions show something of the part in each image, where the background is removed.

    Args:
        foreground: [N, H, W] masks of the parts.
        regions: where the images are inspected.
        what: the images, for the message.

    Raises:
        RegionsError: they hide the whole part of some images, which cannot be judged.
    """
    seen = something_left(foreground, regions)
    if not seen.all():
        raise RegionsError(
            f"In {(~seen).sum()} of {len(seen)} {what} the part lies outside the regions to inspect, and the "
            "background is removed: nothing is left to judge; draw the regions over the part, or take --foreground "
            "none."
        )


def something_left(foreground: NDArray[np.bool_] | None, regions: Regions | None) -> NDArray[np.bool_]:
    """[N]: whether regions show something of each part; [1], True where there are no masks or no regions."""
    if foreground is None or regions is None:
        return np.ones(1, bool)
    return np.asarray((foreground & inspected_pixels(regions, foreground.shape[1:])).any(axis=(1, 2)))


def fit_calibration(
    distances: list[FloatArray],
    *,
    config: FitConfig,
    category: str,
    pasted: list[FloatArray] | None = None,
    foreground: NDArray[np.bool_] | None = None,
    foreground_id: int = 0,
    parts: NDArray[np.bool_] | None = None,
    regions: Regions | None = None,
    picture_only: bool = False,
) -> Calibration:
    """Fit a category's calibration on the distance maps of its held-out good images.

    Args:
        distances: [N, h, w] float32 a stage.
        config: smoothing, the way stages are weighted and the target rates.
        category: the product's name.
        pasted: distance maps of good images with pasted patches, for `pasted_defects`.
        foreground: [N, H, W] bool masks of the parts, where the background is removed. The thresholds are fitted on
            masked maps; the weights of the stages on whole ones, so that a mask changes nothing but what it hides.
        foreground_id: of the SAM that made the masks.
        parts: [N, H, W] bool, where the parts are, for the pixel threshold; None where all of a picture counts.
        regions: where the images are inspected; like the foreground they change nothing but what they hide.
        picture_only: distances and masks leave out what does not show the picture, and so is to be judged.

    Returns:
        A calibration whose `release_id` is still 0: the id is computed from the whole checkpoint.
    """
    fusion = fusion_of(config, stage_weights(distances, pasted, config=config))
    maps = remove_background(cross_fused(distances, pasted, config=config), foreground, regions)
    return Calibration(
        release_id=0,
        category=category,
        **vars(fusion),
        image_threshold=image_threshold(
            image_scores(maps, config.score_share, config.score_pixels), config.false_reject_rate
        ),
        pixel_threshold=pixel_threshold(
            maps,
            parts,
            marked_share=config.pixel_false_positive_rate,
            rate=config.false_reject_rate,
            regions=regions,
        ),
        foreground=config.foreground,
        foreground_id=foreground_id,
        score_share=config.score_share,
        score_pixels=config.score_pixels,
        regions=regions,
        picture_only=picture_only,
    )


def image_threshold(good_scores: FloatArray, false_reject_rate: float) -> float:
    """The score that a new good image exceeds with at most the probability asked for.

    See `conformal_quantile`. With fewer than 1 / rate - 1 images a warning says which rate the largest score gives,
    1 / (n + 1).
    """
    n_images = len(good_scores)
    if conformal_rank(n_images, false_reject_rate) > n_images:
        console.print(
            f"{n_images} held-out good images promise a false-reject rate of {1 / (n_images + 1):.1%}; "
            f"for {false_reject_rate:.1%} hold out {math.ceil(1 / false_reject_rate) - 1}.",
            style="yellow",
        )
    return conformal_quantile(good_scores, false_reject_rate)


def pixel_threshold(
    good_maps: FloatArray,
    parts: NDArray[np.bool_] | None,
    *,
    marked_share: float,
    rate: float,
    regions: Regions | None = None,
) -> float:
    """The anomaly above which a pixel is marked: few new good images have more than a share of them marked.

    Pixels of one image rise and fall together, so that a promise about new images needs one value an image: the level
    that no more than the share of its part's pixels exceed, nor of all its pixels. Of these levels it is the
    `conformal_quantile`. A quantile of all pixels would let the background, which is quiet and after its removal 0,
    make room for marks on the part.

    Args:
        good_maps: [N, H, W] anomaly maps of held-out good images.
        parts: [N, H, W] bool, True on the part; None, and an image without any, count whole.
        marked_share: 0 to 1.
        rate: how many new good images may have more than that marked, 0 to 1; as for `image_threshold`, with few
            images it is 1 / (n + 1).
        regions: where the images are inspected; other pixels count as none of a part's and none of an image's.
    """
    if regions is not None:
        inspected = inspected_pixels(regions, good_maps.shape[1:])
        parts = None if parts is None else parts[:, inspected]
        good_maps = good_maps[:, inspected]
    levels = [_level(one, marked_share) for one in good_maps]
    if parts is not None:
        on_part = [
            _level(one[part], marked_share) if part.any() else -np.inf
            for one, part in zip(good_maps, parts, strict=True)
        ]
        levels = np.maximum(levels, on_part).tolist()
    return conformal_quantile(np.array(levels, np.float32), rate)


def _level(values: FloatArray, share: float) -> float:
    """The smallest of some values that no more than a share of them exceed."""
    return float(np.quantile(values, 1 - share, method="inverted_cdf"))
