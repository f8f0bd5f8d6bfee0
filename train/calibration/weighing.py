"""Stage weights, by good images held out from training and by stand-ins for defects; the test set is never used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import Fusion, fuse_distances, image_scores
from train.calibration.pasting import COPIES
from train.config import FitConfig
from train.support.arrays import FloatArray

MAX_PASTED_IMAGES = 64  # enough for a mean; several pasted images are made of each
MAX_PASTED_PIXELS = 2**26  # of these together, where images are large; their copies take 0.8 GiB
MIN_PASTED_IMAGES = 8
DETECTABILITY_POWER = 2
# At this d', a threshold half-way between good and pasted takes one image in 30,000 for the other kind.
DETECTABILITY_LIMIT = 8.0
FOLDS = 5
MIN_GOOD_IMAGES = 8  # with fewer, the spread of their maxima is too uncertain to weigh by


def most_pasted(shape: tuple[int, int]) -> int:
    """How many images of this height and width get patches pasted in."""
    fitting = MAX_PASTED_PIXELS // (shape[0] * shape[1])
    return min(MAX_PASTED_IMAGES, max(MIN_PASTED_IMAGES, fitting))


def fusion_of(config: FitConfig, stage_weights: tuple[float, float, float]) -> Fusion:
    """How a configuration fuses distance maps, with these weights of the stages."""
    return Fusion(
        image_size=config.image_size,
        smoothing_sigma=config.smoothing_sigma,
        pool_size=config.pool_size,
        stage_weights=stage_weights,
    )


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
    parts: list[FloatArray] = [np.empty(0, np.float32)] * n_images
    for inside, others, pasted_of_others in folds(distances, pasted):
        weights = stage_weights(others, pasted_of_others, config=config)
        maps = fuse_distances([stage[inside] for stage in distances], fusion_of(config, weights))
        for index, one in zip(inside, maps, strict=True):
            parts[index] = one
    return np.stack(parts)


def folds(
    distances: list[FloatArray], pasted: list[FloatArray] | None
) -> Iterator[tuple[NDArray[np.intp], list[FloatArray], list[FloatArray] | None]]:
    """Positions of some of at least two good images, and the maps of the others and of pasted copies of the others."""
    n_images = len(distances[0])
    fold_of = np.arange(n_images) % FOLDS
    # Copies of one image after those of another; not of every image there are any.
    n_copied = 0 if pasted is None else len(pasted[0]) // COPIES
    fold_of_pasted = np.tile(fold_of[:n_copied], COPIES)
    for fold in range(min(FOLDS, n_images)):
        yield (
            np.flatnonzero(fold_of == fold),
            [stage[fold_of != fold] for stage in distances],
            None if pasted is None else [stage[fold_of_pasted != fold] for stage in pasted],
        )


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
    return summing_to_3(weights)


def summing_to_3(weights: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    """Weights of three stages, not all 0, in the same proportion."""
    first, second, third = (3 * weights / weights.sum()).tolist()
    return first, second, third


def fused_scores(
    distances: list[FloatArray], weights: NDArray[np.floating[Any]], *, config: FitConfig
) -> NDArray[np.float64]:
    """[N]: each image's score, were its stages weighted so."""
    maps = fuse_distances(distances, fusion_of(config, summing_to_3(weights)))
    return image_scores(maps, config.score_share, config.score_pixels).astype(np.float64)


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
    return np.stack([image_scores(stage, config.score_share, config.score_pixels) for stage in maps]).astype(
        np.float64
    )
