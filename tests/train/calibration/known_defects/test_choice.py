"""Ranks by hand; another setting is chosen where it is better by more than chance, and hardly ever else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from train.calibration.known_defects.choice import LEAST_DEFECTS, choose, rank
from train.calibration.known_defects.settings import EMPHASES, settings_to_try, weights_of
from train.checkpoint.known_defects import FusionSetting
from train.evaluation.metrics import auroc

from .conftest import CONFIG, PRESENT, MakeImages

Floats = NDArray[np.float64]


def test_ranks_by_hand() -> None:
    ranking = rank(np.array([[1.0, 2.0, 3.0, 3.0]]), np.array([[3.0, 2.5]]))
    # 3 is above two and beside two of four; 2.5 above two.
    np.testing.assert_allclose(ranking.below, [[0.75, 0.5]])
    np.testing.assert_allclose(ranking.above, [[1.0, 1.0, 0.25, 0.25]])
    assert ranking.auroc == pytest.approx([0.625])


def test_both_means_are_the_area_under_the_curve_and_left_out_defects_are_gone() -> None:
    generator = np.random.default_rng(0)
    good, defects = (
        generator.integers(0, 9, (3, 20)).astype(float),
        generator.integers(2, 12, (3, 7)).astype(float),
    )
    ranking = rank(good, defects)
    labels = np.arange(27) >= 20
    for row in range(3):
        expected = auroc(np.concatenate([good[row], defects[row]]).astype(np.float32), labels)
        assert ranking.auroc[row] == pytest.approx(expected)
        assert ranking.above[row].mean() == pytest.approx(expected)
    fewer, expected_rest = (
        ranking.without(np.array([1, 5]), good, defects),
        rank(good, np.delete(defects, [1, 5], axis=1)),
    )
    np.testing.assert_allclose(fewer.below, expected_rest.below)
    np.testing.assert_allclose(fewer.above, expected_rest.above)


def scores(
    generator: np.random.Generator, *, n_good: int, n_defects: int, better: float = 0.0
) -> tuple[Floats, Floats]:
    """Twenty settings that see the same and differ by noise; the eleventh sees defects `better` by so much."""
    good, defects = generator.normal(size=n_good), generator.normal(1.0, size=n_defects)
    noise = 0.5
    all_good = good + noise * generator.normal(size=(20, n_good))
    all_defects = defects + noise * generator.normal(size=(20, n_defects))
    all_defects[10] += better
    return all_good, all_defects


def test_where_none_is_better_another_is_chosen_in_one_of_twenty_cases_at_most() -> None:
    generator = np.random.default_rng(0)
    for n_defects in (5, 20):
        chosen = [choose(rank(*scores(generator, n_good=30, n_defects=n_defects))) for _ in range(150)]
        assert np.mean(np.array(chosen) != 0) <= 0.05


def test_a_better_one_is_chosen_and_by_few_defects_only_where_it_is_far_better() -> None:
    generator = np.random.default_rng(0)
    many = [choose(rank(*scores(generator, n_good=99, n_defects=50, better=1.0))) for _ in range(20)]
    assert np.mean(np.array(many) == 10) > 0.9
    few = [choose(rank(*scores(generator, n_good=99, n_defects=5, better=0.2))) for _ in range(20)]
    assert np.mean(np.array(few) != 0) < 0.2
    clear = rank(np.tile(np.arange(20.0), (2, 1)), np.array([[9.5] * LEAST_DEFECTS, [30.0] * LEAST_DEFECTS]))
    assert choose(clear) == 1
    assert choose(clear.without(np.array([0]), np.zeros((2, 20)), np.ones((2, 5)))) == 0  # one is missing


def test_of_equals_the_present_one_stays() -> None:
    same = np.tile(np.arange(12.0), (3, 1))
    assert choose(rank(same, same[:, :6] + 3)) == 0


def test_the_settings_are_few_and_the_present_one_is_first() -> None:
    tried = settings_to_try(PRESENT, foregrounds=("none", "threshold"), with_pasted=False, largest_sigma=16)
    assert tried[0] == PRESENT
    assert len(set(tried)) == len(tried) == 2 * 4 * (2 + len(EMPHASES))
    assert {setting.smoothing_sigma for setting in tried} == {1.0, 2.0, 3.0, 4.0}
    narrow = settings_to_try(PRESENT, foregrounds=("none",), with_pasted=True, largest_sigma=2)
    assert {setting.smoothing_sigma for setting in narrow} == {1.0, 2.0}
    assert len(narrow) == 2 * (3 + len(EMPHASES))
    unblurred = PRESENT.model_copy(update={"smoothing_sigma": 0.0})
    tried = settings_to_try(unblurred, foregrounds=("none",), with_pasted=False, largest_sigma=16)
    assert {setting.smoothing_sigma for setting in tried} == {0.0, 1.0, 2.0}


def test_an_emphasis_multiplies_the_weights_that_drown_no_stage(images: MakeImages) -> None:
    good = images(np.random.default_rng(0), 12)
    emphasised = FusionSetting(
        stage_weighting="good_maximum", emphasis=(2.0, 1.0, 0.0), smoothing_sigma=2.0, foreground="none"
    )
    plain, own = weights_of([PRESENT, emphasised], good.distances, None, config=CONFIG)
    assert sum(own) == pytest.approx(3)
    assert own[2] == 0
    assert own[0] / own[1] == pytest.approx(2 * plain[0] / plain[1])
