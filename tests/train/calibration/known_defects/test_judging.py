"""Thresholds after a choice: of good images alone, each scored without a say, and what they promise holds."""

from __future__ import annotations

import numpy as np
import pytest

from model_repository.distance_fusion.map_fusion import image_scores
from train.calibration.known_defects.study import Chooser, DefectFile, study_known_defects
from train.calibration.known_defects.tables import score_tables
from train.calibration.thresholds import fit_calibration
from train.calibration.weighing import folds

from .conftest import CONFIG, SETTINGS, MakeBench, MakeImages


def test_the_present_choice_is_the_present_calibration(images: MakeImages, bench: MakeBench) -> None:
    generator = np.random.default_rng(0)
    good, defects = images(generator, 14), images(generator, 6)
    own = bench(good, defects)
    expected = fit_calibration(good.distances, config=CONFIG, category="bolt")
    assert own.judge(own.present).calibration == expected
    # Whatever a fold would have chosen: where the present setting stays, the release stays.
    assert own.judge((0, 1, 1, 0, 4, 2)).calibration == expected


def test_scores_are_those_of_the_maps(images: MakeImages) -> None:
    generator = np.random.default_rng(0)
    good, defects = images(generator, 14), images(generator, 6)
    whole, *by_fold = score_tables(good, None, defects, settings=SETTINGS, config=CONFIG)
    for column, setting in enumerate(SETTINGS):
        for part, some in ((whole.good, good), (whole.defects, defects)):
            maps = some.maps(setting, whole.weights[column], CONFIG)
            np.testing.assert_allclose(part[column], image_scores(maps, CONFIG.score_share), rtol=1e-5)
    for table, (inside, *_) in zip(by_fold, folds(good.distances, None), strict=True):
        assert set(table.inside) == set(inside)
        assert set(table.others) | set(table.inside) == set(range(14))


def test_each_good_image_is_scored_by_what_is_chosen_without_it(images: MakeImages, bench: MakeBench) -> None:
    generator = np.random.default_rng(0)
    good = images(generator, 14)
    own = bench(good, images(generator, 6))
    choice = (1, 1, 4, 1, 1, 0)
    judge = own.judge(choice)
    assert judge.setting == SETTINGS[1]
    for table, chosen in zip(own.tables[1:], choice[1:], strict=True):
        maps = good.some(table.inside).maps(SETTINGS[chosen], table.weights[chosen], CONFIG)
        level = table.good[:, table.others].mean(axis=1)
        expected = image_scores(maps, CONFIG.score_share) * level[1] / level[chosen]
        np.testing.assert_allclose(judge.good_scores[table.inside], expected, rtol=1e-5)
    # 15 * 0.9 = 13.5: the 14th of 14.
    assert judge.calibration.image_threshold == judge.good_scores.max()


def test_the_promised_rate_of_false_rejects_holds_after_a_choice(
    images: MakeImages, bench: MakeBench
) -> None:
    """20 held out, 10 known defects that one stage alone sees: of new good images at most 1 in 10 on average."""
    generator = np.random.default_rng(1)
    rates, changed = [], 0
    for _ in range(100):
        own = bench(images(generator, 20), images(generator, 10, lift=1.0))
        choice = Chooser(own).choose()
        judge = own.judge(choice)
        maps = images(generator, 100).maps(judge.setting, judge.weights, CONFIG)
        scores = image_scores(maps, CONFIG.score_share)
        rates.append((scores > np.float32(judge.calibration.image_threshold)).mean())
        changed += choice[0] != 0
    standard_error = float(np.std(rates)) / len(rates) ** 0.5
    assert 20 < changed < 100  # often, and not by every draw: the choice depends on the good images
    assert np.mean(rates) <= 0.1 + 2 * standard_error
    assert np.mean(rates) >= 0.04  # nor is it bought with escapes


def test_false_rejects_are_by_the_threshold_of_the_others(images: MakeImages, bench: MakeBench) -> None:
    generator = np.random.default_rng(0)
    own = bench(images(generator, 14), images(generator, 6))
    judge = own.judge(own.present)
    # Of 13 others the threshold is the 13th: the highest of all is rejected, and no other.
    assert judge.false_rejects(0.1) == 1
    assert judge.false_rejects(0.5) == pytest.approx(7, abs=1)


@pytest.mark.parametrize("n_good", [1, 2])
def test_a_handful_of_good_images_chooses_nothing(n_good: int, images: MakeImages, bench: MakeBench) -> None:
    generator = np.random.default_rng(0)
    defects = images(generator, 6, lift=50.0)
    own = bench(images(generator, n_good), defects)
    files = [DefectFile(f"{index}.png", "known", "0") for index in range(6)]
    judge, figures = study_known_defects(own, defects, None, files)
    assert judge.setting == SETTINGS[0]
    assert not figures.changed
