"""Measures by hand, against scikit-learn, and PRO against a slow implementation of its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tests.train.evaluation.region_overlap import per_region_overlap
from train.errors import NotFiniteError
from train.evaluation.metrics import auroc, average_precision, f1, rate_interval

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def slow_regions(mask: Masks) -> list[set[tuple[int, int]]]:
    """Connected regions with 8 neighbours, by flood fill."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        region, frontier = set(), [left.pop()]
        while frontier:
            row, column = frontier.pop()
            region.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            frontier.extend(near)
        regions.append(region)
    return regions


def slow_pro(maps: Maps, masks: Masks, limit: float) -> float:
    """Bergmann et al. as written: for every threshold, the mean share found of every region."""
    regions = [(index, region) for index, mask in enumerate(masks) for region in slow_regions(mask)]
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(value) for value in maps.ravel()}, reverse=True):
        detected = maps >= threshold
        overlaps = [
            sum(detected[index, row, column] for row, column in region) / len(region)
            for index, region in regions
        ]
        curve.append((float(detected[~masks].mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def test_auroc_by_hand() -> None:
    # 5 of the 6 pairs of a good and a defective score stand in the right order; a tie is half a pair.
    assert auroc(np.float32([1, 2, 4, 3, 5]), np.array([0, 0, 0, 1, 1], bool)) == pytest.approx(5 / 6)
    assert auroc(np.float32([1, 1]), np.array([0, 1], bool)) == pytest.approx(0.5)


def test_average_precision_by_hand() -> None:
    # At 5 both rejected of both are defective, at 3 two of three; a tie with a good image counts it as rejected.
    scores, labels = np.float32([1, 2, 4, 3, 5]), np.array([0, 0, 0, 1, 1], bool)
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.float32([1, 1]), np.array([0, 1], bool)) == pytest.approx(0.5)


def test_f1_by_hand() -> None:
    # 2 catches, 1 false reject, 1 escape.
    rejected, labels = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    assert f1(rejected, labels) == pytest.approx(2 / 3)
    assert f1(np.zeros(5, bool), labels) == 0


@pytest.mark.parametrize("seed", range(5))
def test_image_measures_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(80) < 0.4
    scores = np.round(rng.random(80) + 0.3 * labels, 1).astype(np.float32)  # many ties
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert f1(scores > 0.7, labels) == pytest.approx(f1_score(labels, scores > 0.7), abs=1e-12)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),  # 1 - 0.025 ** (1 / 10)
        (10, 10, 0.691503, 1.0),
        (1, 10, 0.002529, 0.445016),  # Clopper and Pearson's table
    ],
)
def test_interval_of_known_values(count: int, total: int, low: float, high: float) -> None:
    assert rate_interval(count, total) == pytest.approx((low, high), abs=1e-6)


def test_interval_ends_where_a_tail_is_2_5_percent() -> None:
    interval = rate_interval(3, 176)
    assert interval is not None
    low, high = (
        [math.comb(176, count) * rate**count * (1 - rate) ** (176 - count) for count in range(177)]
        for rate in interval
    )
    assert sum(low[3:]) == pytest.approx(0.025)
    assert sum(high[:4]) == pytest.approx(0.025)


def test_interval_holds_the_true_rate_at_least_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [rate_interval(count, 40) for count in range(41)]
    for rate in (0.01, 0.1, 0.5):
        drawn = rng.binomial(40, rate, size=5000)
        held = [low <= rate <= high for low, high in (intervals[count] for count in drawn)]
        assert np.mean(held) >= 0.95


def test_interval_of_nothing_is_none() -> None:
    assert rate_interval(0, 0) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("measure", [auroc, average_precision])
def test_scores_that_are_not_finite_have_no_measure(
    measure: Callable[[NDArray[np.float32], NDArray[np.bool_]], float | None], value: float
) -> None:
    # The defective image's score: NaN would sort as the highest, and the measure would be 1.
    scores, labels = np.float32([1, 2, value]), np.array([False, False, True])
    with pytest.raises(
        NotFiniteError, match="scores of 1 of 3 images are not finite, those of image 3 first"
    ):
        measure(scores, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("image", [0, 1])
def test_maps_that_are_not_finite_have_no_pixel_measures(image: int, value: float) -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[1, :2] = True
    maps = np.zeros((2, 4, 4), np.float32)
    maps[image, 0, 0] = value
    with pytest.raises(
        NotFiniteError, match=f"maps of 1 of 2 images are not finite, those of image {image + 1}"
    ):
        per_region_overlap(maps, masks)


def test_auroc_of_maps_counts_pixels() -> None:
    maps = np.float32([[[1, 2], [3, 4]]])
    assert auroc(maps, np.array([[[0, 0], [0, 1]]], bool)) == 1.0


@pytest.mark.parametrize("label", [False, True])
def test_one_class_has_no_measures(label: bool) -> None:
    assert auroc(np.float32([1, 2, 3]), np.full(3, label)) is None
    assert average_precision(np.float32([1, 2, 3]), np.full(3, label)) is None
    assert f1(np.array([True, False, True]), np.full(3, label)) is None
    assert per_region_overlap(np.zeros((1, 4, 4), np.float32), np.full((1, 4, 4), label)) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pro_equals_its_definition(seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 9, 9)) < 0.2
    maps = (rng.random((3, 9, 9)) + 0.5 * masks).astype(np.float32)
    maps = np.round(maps, 2)  # ties: pixels of one score cross a threshold together
    pro = per_region_overlap(maps, masks, max_false_positive_rate=limit)
    assert pro == pytest.approx(slow_pro(maps, masks, limit), abs=1e-9)


def two_regions() -> Masks:
    """A region of 1 pixel and one of 9."""
    masks = np.zeros((1, 10, 10), bool)
    masks[0, 0, 0] = True
    masks[0, 5:8, 5:8] = True
    return masks


def test_pro_of_a_perfect_map_is_one_and_of_an_inverted_map_zero() -> None:
    masks = two_regions()
    assert per_region_overlap(masks.astype(np.float32), masks) == pytest.approx(1)
    assert per_region_overlap(-masks.astype(np.float32), masks) == pytest.approx(0)


def test_pro_of_a_flat_map_is_half_the_limit() -> None:
    # One threshold: the curve is the diagonal, the area under it to 0.3 is 0.045.
    assert per_region_overlap(np.zeros((1, 10, 10), np.float32), two_regions()) == pytest.approx(0.15)


@pytest.mark.parametrize("region", [(0, slice(0, 1), slice(0, 1)), (0, slice(5, 8), slice(5, 8))])
def test_a_small_region_weighs_as_much_as_a_large_one(region: tuple[int, slice, slice]) -> None:
    # One region is found before any good pixel, the other after all of them: half, whichever it is.
    masks = two_regions()
    maps = np.where(masks, 0, 1).astype(np.float32)
    maps[region] = 2
    assert per_region_overlap(maps, masks) == pytest.approx(0.5)


def test_pro_of_a_step_inside_the_limit() -> None:
    # 20 good pixels; the region is found after 3 of them, at a rate of 0.15, half of the limit.
    masks = np.zeros((1, 3, 7), bool)
    masks[0, 0, 0] = True
    maps = -np.arange(21, dtype=np.float32).reshape(1, 3, 7)
    maps[0, 0, 0] = -3.5
    assert per_region_overlap(maps, masks) == pytest.approx(0.5)


def test_diagonal_neighbours_are_one_region() -> None:
    # Half of the diagonal pair and all of the single pixel; with 4 neighbours it would be 2 of 3 regions.
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 6, 6] = True
    maps = np.where(masks, 0, 1).astype(np.float32)
    maps[0, 0, 0] = maps[0, 6, 6] = 2
    assert per_region_overlap(maps, masks) == pytest.approx((1 / 2 + 1) / 2)
