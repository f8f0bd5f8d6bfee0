"""Every image's score by every setting, from distance maps that are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.fusion_regions import Regions
from model_repository.distance_fusion.map_fusion import (
    STRIDES,
    fuse_distances,
    image_scores,
    remove_background,
)
from train.calibration.known_defects.choice import Floats
from train.calibration.known_defects.settings import weights_of
from train.calibration.weighing import folds, fusion_of
from train.checkpoint.known_defects import FusionSetting
from train.config import FitConfig
from train.support.arrays import FloatArray
from train.support.progress import progress_bar

PIXELS_AT_ONCE = 2**19  # of maps in memory, of three stages each
Weights = tuple[float, float, float]
Masks = NDArray[np.bool_] | None


@dataclass(frozen=True)
class Images:
    """What the networks see in some images: distance maps and where the parts are.

    Attributes:
        distances: [N, h, h] a stage.
        foregrounds: [N, H, W] masks of what counts by each way to remove the background; None for all of the images.
        regions: where the images are inspected; None for everywhere.
        picture_only: both leave out what does not show the picture.
    """

    distances: list[FloatArray]
    foregrounds: Mapping[str, Masks]
    regions: Regions | None = None
    picture_only: bool = False

    def __len__(self) -> int:
        return len(self.distances[0])

    def some(self, positions: NDArray[np.intp]) -> Images:
        """Those at some positions."""
        masks = {how: None if mask is None else mask[positions] for how, mask in self.foregrounds.items()}
        distances = [stage[positions] for stage in self.distances]
        return Images(distances, masks, self.regions, self.picture_only)

    def maps(self, setting: FusionSetting, weights: Weights, config: FitConfig) -> FloatArray:
        """Anomaly maps [N, H, W] by a setting and its stage weights."""
        fusion = fusion_of(setting.applied_to(config), weights)
        foreground = self.foregrounds[setting.foreground]
        return remove_background(fuse_distances(self.distances, fusion), foreground, self.regions)


@dataclass(frozen=True)
class Table:
    """Scores by C settings, and the stage weights that were found on some of the good images.

    The scores are by the weights of all of them. A table of its own for each fold would take five times as long, and
    which setting is best hardly hangs on a mean over a few images more or less.

    Attributes:
        weights: of each setting.
        inside: positions of the good images that the weights were found without; none where all had a say.
        others: of those that had a say.
        good: [C, N], of all good images.
        defects: [C, M].
    """

    weights: tuple[Weights, ...]
    inside: NDArray[np.intp]
    others: NDArray[np.intp]
    good: Floats
    defects: Floats


def score_tables(
    good: Images,
    pasted: list[FloatArray] | None,
    defects: Images,
    *,
    settings: Sequence[FusionSetting],
    config: FitConfig,
) -> list[Table]:
    """The table of all good images, then one for each fold of them; where there is one image, no fold."""
    everyone = np.arange(len(good))
    weights = weights_of(settings, good.distances, pasted, config=config)
    with progress_bar("Trying settings on known defects", len(good) + len(defects)) as bar:
        of_good, of_defects = (
            _scores(images, settings, weights, config=config, advance=bar.advance)
            for images in (good, defects)
        )
    tables = [Table(weights, everyone[:0], everyone, of_good, of_defects)]
    for inside, others, copies in folds(good.distances, pasted) if len(good) > 1 else ():
        own = weights_of(settings, others, copies, config=config)
        tables.append(Table(own, inside, np.setdiff1d(everyone, inside), of_good, of_defects))
    return tables


def _scores(
    images: Images,
    settings: Sequence[FusionSetting],
    weights: Sequence[Weights],
    *,
    config: FitConfig,
    advance: Callable[[int], None],
) -> Floats:
    """[C, N]: by each setting and its weights, of each image."""
    scores = np.empty((len(settings), len(images)))
    n_pixels = STRIDES[0] ** 2 * math.prod(images.distances[0].shape[1:])
    at_once = max(1, PIXELS_AT_ONCE // n_pixels)
    for start in range(0, len(images), at_once):
        some = images.some(np.arange(start, min(start + at_once, len(images))))
        for sigma in dict.fromkeys(setting.smoothing_sigma for setting in settings):
            stages = _maps_of_each_stage(some.distances, sigma, config)
            columns = [c for c, setting in enumerate(settings) if setting.smoothing_sigma == sigma]
            for column in columns:
                fused = np.tensordot(np.array(weights[column], np.float32), stages, axes=1)
                foreground = some.foregrounds[settings[column].foreground]
                maps = remove_background(fused, foreground, some.regions)
                scores[column, start : start + len(some)] = image_scores(
                    maps, config.score_share, config.score_pixels
                )
        advance(len(some))
    return scores


def _maps_of_each_stage(distances: list[FloatArray], sigma: float, config: FitConfig) -> FloatArray:
    """[3, N, H, W]: what each stage gives alone; the fusion is linear in the weights."""
    blurred = config.model_copy(update={"smoothing_sigma": sigma})
    alone: tuple[Weights, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    return np.stack([fuse_distances(distances, fusion_of(blurred, weights)) for weights in alone])
