"""Thresholds and stage weights, fitted on good images held out from training; the test set is never used."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    Fusion,
    fuse_distances,
    image_scores,
    remove_background,
)
from train.calibration.conformal import conformal_quantile, conformal_rank
from train.calibration.foreground import ForegroundFinder, find_foreground
from train.calibration.pasting import COPIES, paste_patches
from train.calibration.usual import usual_scores
from train.checkpoint.provenance import UsualScores
from train.config import FitConfig
from train.method.backbones import Backbone
from train.method.student import Student, compute_distances
from train.support.arrays import FloatArray
from train.support.progress import console

WITHOUT_NETWORK = ForegroundFinder("threshold")
MAX_PASTED_IMAGES = 64  # enough for a mean; several pasted images are made of each
DETECTABILITY_POWER = 2
# At this d', a threshold half-way between good and pasted takes one image in 30,000 for the other kind.
DETECTABILITY_LIMIT = 8.0
FOLDS = 5
MIN_GOOD_IMAGES = 8  # with fewer, the spread of their maxima is too uncertain to weigh by


class Calibrated(NamedTuple):
    """A calibration, and what the images that it was fitted on give."""

    calibration: Calibration
    usual: UsualScores


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

    Both networks are on the device; where images kept their shape, `shown` [N, H, W] is False where they are filled,
    which counts for no pixel threshold; for the rest see `fit_calibration`.
    """

    def distances_of(pixels: NDArray[np.uint8], what: str) -> list[FloatArray]:
        scale = config.distance_scale
        return compute_distances(teacher, student, pixels, scale=scale, device=device, what=what)

    pasted = None
    if config.stage_weighting == "pasted_defects":
        pasted = distances_of(
            paste_patches(images[:MAX_PASTED_IMAGES], seed=config.seed), "Weighing the stages"
        )
    foreground = find_foreground(images, finder, device=device)
    # Where the background stays, the part is looked for all the same: for the pixel threshold alone.
    parts = find_foreground(images, WITHOUT_NETWORK, device=device) if foreground is None else foreground
    if shown is not None:
        parts = shown if parts is None else parts & shown
    distances = distances_of(images, "Calibration")
    calibration = fit_calibration(
        distances,
        config=config,
        category=category,
        pasted=pasted,
        foreground=foreground,
        foreground_id=finder.id,
        parts=parts,
    )
    return Calibrated(calibration, usual_scores(distances, calibration, foreground))


def fit_calibration(
    distances: list[FloatArray],
    *,
    config: FitConfig,
    category: str,
    pasted: list[FloatArray] | None = None,
    foreground: NDArray[np.bool_] | None = None,
    foreground_id: int = 0,
    parts: NDArray[np.bool_] | None = None,
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

    Returns:
        A calibration whose `release_id` is still 0: the id is computed from the whole checkpoint.
    """
    fusion = fusion_of(config, stage_weights(distances, pasted, config=config))
    maps = remove_background(cross_fused(distances, pasted, config=config), foreground)
    return Calibration(
        release_id=0,
        category=category,
        **vars(fusion),
        image_threshold=image_threshold(image_scores(maps, config.score_share), config.false_reject_rate),
        pixel_threshold=pixel_threshold(
            maps, parts, marked_share=config.pixel_false_positive_rate, rate=config.false_reject_rate
        ),
        foreground=config.foreground,
        foreground_id=foreground_id,
        score_share=config.score_share,
    )


def fusion_of(config: FitConfig, stage_weights: tuple[float, float, float]) -> Fusion:
    """How a configuration fuses distance maps, with these weights of the stages."""
    return Fusion(
        image_size=config.image_size,
        smoothing_sigma=config.smoothing_sigma,
        pool_size=config.pool_size,
        stage_weights=stage_weights,
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
    good_maps: FloatArray, parts: NDArray[np.bool_] | None, *, marked_share: float, rate: float
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
    """
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


def cross_fused(
    distances: list[FloatArray], pasted: list[FloatArray] | None, *, config: FitConfig
) -> FloatArray:
    """Anomaly maps [N, H, W] of held-out good images, each fused with weights that were found without it.

    Weights make little of what they were found on: thresholds on such scores are too low, and more new good images are
    rejected than promised. For arguments see `stage_weights`.
    """
    n_images = len(distances[0])
    if config.stage_weighting == "equal" or n_images < 2:
        return fuse_distances(distances, fusion_of(config, stage_weights(distances, pasted, config=config)))
    fold_of = np.arange(n_images) % FOLDS
    # Copies of one image after those of another; not of every image there are any.
    fold_of_pasted = np.tile(fold_of[:MAX_PASTED_IMAGES], COPIES)
    parts: list[FloatArray] = [np.empty(0, np.float32)] * n_images
    for fold in range(min(FOLDS, n_images)):
        weights = stage_weights(
            [stage[fold_of != fold] for stage in distances],
            None if pasted is None else [stage[fold_of_pasted != fold] for stage in pasted],
            config=config,
        )
        inside = np.flatnonzero(fold_of == fold)
        maps = fuse_distances([stage[inside] for stage in distances], fusion_of(config, weights))
        for index, one in zip(inside, maps, strict=True):
            parts[index] = one
    return np.stack(parts)


def stage_weights(
    distances: list[FloatArray], pasted: list[FloatArray] | None, *, config: FitConfig
) -> tuple[float, float, float]:
    """How much each stage's map counts; the three sum to 3, as equal ones do.

    Distances are [N, h, w] a stage, of held-out good images and of images with pasted patches. `good_maximum` divides
    each stage by its usual maximum on good images, so that none drowns the others. `pasted_defects` multiplies that by
    the square of the stage's detectability index d': how many standard deviations the scores of images with a pasted
    patch lie above those of good images. A stage that does not tell them apart is noise in the sum. The power of 2 was
    measured (docs/measurements/edge-preset.md). A still higher d' than DETECTABILITY_LIMIT finds no more defects, and
    finer stages locate them better: stages beyond it count alike, and all do where their sum is beyond it already.
    """
    if config.stage_weighting == "equal":
        return 1.0, 1.0, 1.0
    good = stage_scores(distances, config=config)
    weights = 1 / good.mean(axis=1).clip(1e-12)
    if config.stage_weighting == "pasted_defects" and pasted is not None and good.shape[1] >= MIN_GOOD_IMAGES:
        alike = [fused_scores(maps, weights, config=config) for maps in (distances, pasted)]
        told_apart = detectability(good, stage_scores(pasted, config=config))
        if told_apart.any() and detectability(*alike) < DETECTABILITY_LIMIT:
            weights = weights * told_apart**DETECTABILITY_POWER
    return _summing_to_3(weights)


def _summing_to_3(weights: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    first, second, third = (3 * weights / weights.sum()).tolist()
    return first, second, third


def fused_scores(
    distances: list[FloatArray], weights: NDArray[np.floating[Any]], *, config: FitConfig
) -> NDArray[np.float64]:
    """[N]: each image's score, were its stages weighted so."""
    maps = fuse_distances(distances, fusion_of(config, _summing_to_3(weights)))
    return image_scores(maps, config.score_share).astype(np.float64)


def detectability(good: NDArray[np.floating[Any]], pasted: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The index d' of scores [..., N] of images with a pasted patch against those of good ones, [...].

    It is the difference of their means over the standard deviation of the good ones, 0 to `DETECTABILITY_LIMIT`.
    """
    gain = pasted.mean(axis=-1) - good.mean(axis=-1)
    index: NDArray[np.float64] = gain / good.std(axis=-1, ddof=1).clip(1e-12)
    return index.clip(0, DETECTABILITY_LIMIT)


def stage_scores(distances: list[FloatArray], *, config: FitConfig) -> NDArray[np.float64]:
    """[3, N]: each image's score, were its anomaly map made of one stage alone."""
    only_one_stage = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    maps = (fuse_distances(distances, fusion_of(config, weights)) for weights in only_one_stage)
    return np.stack([image_scores(stage, config.score_share) for stage in maps]).astype(np.float64)
