"""What is filled beside pictures that keep their shape counts in no pixel measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_repository.distance_fusion.map_fusion import Calibration, judge
from train.data.category import TestImage
from train.evaluation.breakdown import JudgedSet
from train.evaluation.evaluate import marked_share_of_good

CALIBRATION = Calibration(
    release_id=1,
    category="cup",
    image_size=(32, 64),
    smoothing_sigma=0.0,
    pool_size=1,
    stage_weights=(1.0, 1.0, 1.0),
    image_threshold=0.9,
    pixel_threshold=0.5,
)
TEST = tuple(TestImage(Path(f"{defect}.png"), defect, None) for defect in ("good", "dent"))


def judged_set(*, columns: slice, shown: bool) -> JudgedSet:
    """Two judged images that lie in the middle 32 columns; all of what is beside them is marked."""
    maps = np.random.default_rng(0).uniform(0, 1, (2, 32, 64)).astype(np.float32)
    masks, seen = np.zeros((2, 32, 64), bool), np.zeros((2, 32, 64), bool)
    seen[:, :, 16:48] = True
    maps[~seen] = 1.0
    masks[1, :8, 16:24] = True
    verdict = judge(maps[:, :, columns], CALIBRATION)
    return JudgedSet(TEST, verdict, masks[:, :, columns], seen if shown else None)


def test_measures_are_those_of_the_pictures_alone() -> None:
    filled, alone = (
        judged_set(columns=slice(0, 64), shown=True),
        judged_set(columns=slice(16, 48), shown=False),
    )
    defective = np.array([1])
    measures = [judged.truth.measure_pixels(judged.pixels, defective) for judged in (filled, alone)]
    assert measures[0] == measures[1] is not None
    assert marked_share_of_good(filled, None) == marked_share_of_good(alone, None)
    assert filled.sizes.keys() == alone.sizes.keys() == {"middle"}  # 6 % of the picture, 3 of the rectangle
