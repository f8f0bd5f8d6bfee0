"""Regions in a calibration, whichever way it is fitted: by a configuration, or by what known defects chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_repository.distance_fusion.fusion_regions import Regions, inspected_pixels
from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores
from train.calibration.foreground import ForegroundFinder
from train.calibration.known_defects.judging import calibrate_setting
from train.calibration.known_defects.tables import Images, score_tables
from train.calibration.thresholds import HeldOut, fit_calibration, require_something_left
from train.calibration.usual import usual_scores
from train.checkpoint.known_defects import FusionSetting
from train.config import FitConfig
from train.errors import RegionsError

REGIONS = Regions(size=(64, 64), inspect=(((0.0, 0.0), (64.0, 0.0), (0.0, 64.0)),))
CONFIG = FitConfig(image_size=64, stage_weighting="good_maximum", smoothing_sigma=1.0, score_share=0.01)
RNG = np.random.default_rng(0)
DISTANCES = [RNG.uniform(0, 1, (12, side, side)).astype(np.float32) for side in (16, 8, 4)]
PARTS = RNG.uniform(size=(12, 64, 64)) > 0.5


def test_both_ways_give_the_same_calibration() -> None:
    how: dict[str, Any] = {"config": CONFIG, "category": "pill"}
    fitted = fit_calibration(DISTANCES, parts=PARTS, regions=REGIONS, **how)
    seen = HeldOut(DISTANCES, None, None, PARTS, REGIONS)
    assert calibrate_setting(FusionSetting.of(CONFIG), seen, finder=ForegroundFinder("none"), **how) == fitted
    assert fitted.regions == REGIONS


def test_scores_of_known_defects_count_what_is_inspected() -> None:
    images, setting = Images(DISTANCES, {"none": None}, REGIONS), FusionSetting.of(CONFIG)
    table = score_tables(images, None, images, settings=[setting], config=CONFIG)[0]
    maps = images.some(np.arange(12)).maps(setting, table.weights[0], CONFIG)
    assert not maps[:, ~inspected_pixels(REGIONS, (64, 64))].any()
    np.testing.assert_allclose(table.defects[0], image_scores(maps, CONFIG.score_share), rtol=1e-5)


def test_marks_on_good_parts_are_counted_among_inspected_pixels() -> None:
    """What is hidden is 0, and would make room for marks on what is inspected."""
    calibration = fit_calibration(DISTANCES, config=CONFIG, category="pill", regions=REGIONS)
    maps = fuse_distances(DISTANCES, calibration.fusion)[:, inspected_pixels(REGIONS, (64, 64))]
    marked = (maps > calibration.pixel_threshold).mean(axis=1)
    assert marked.max() < 2 * CONFIG.pixel_false_positive_rate


def test_what_good_images_give_is_of_what_is_inspected() -> None:
    calibration = fit_calibration(DISTANCES, config=CONFIG, category="pill", regions=REGIONS)
    usual = usual_scores(DISTANCES, calibration, None)
    assert usual.score.most == pytest.approx(calibration.image_threshold, rel=0.1)
    assert sum(stage.median for stage in usual.stages) == pytest.approx(usual.score.median, rel=0.05)


def test_a_part_outside_all_regions_is_told_in_one_sentence() -> None:
    foreground = np.ones((3, 64, 64), bool)
    foreground[1, :40] = foreground[1, :, :40] = False
    with pytest.raises(
        RegionsError, match="In 1 of 3 test images the part lies outside the regions to inspect"
    ):
        require_something_left(foreground, REGIONS, what="test images")
    require_something_left(foreground, None, what="test images")
    require_something_left(None, REGIONS, what="test images")
