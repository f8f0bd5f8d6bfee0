"""Regions against matplotlib's own polygons, and what they hide of maps, scores and marks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from model_repository.distance_fusion import fusion_regions
from model_repository.distance_fusion.fusion_regions import (
    Polygon,
    Regions,
    counted_pixels,
    inspected_pixels,
    polygon_pixels,
)
from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    judge,
    judge_scores,
    release_id_of,
    remove_background,
)

LEFT: Polygon = ((0.0, 0.0), (32.0, 0.0), (32.0, 64.0), (0.0, 64.0))
STAR: Polygon = ((32.0, 2.0), (50.0, 60.0), (3.0, 22.0), (61.0, 22.0), (14.0, 60.0))  # it crosses itself
CALIBRATION = Calibration(
    release_id=0,
    category="pill",
    image_size=64,
    smoothing_sigma=0.0,
    pool_size=1,
    stage_weights=(1.0, 0.0, 0.0),
    image_threshold=0.5,
    pixel_threshold=0.5,
)
IGNORING = replace(CALIBRATION, regions=Regions(size=(64, 64), ignore=(LEFT,)))


def blots(*columns: int) -> list[NDArray[np.float32]]:
    """Distances of images that are as usual but for one place each, at this column of the first stage's map."""
    maps = [np.zeros((len(columns), side, side), np.float32) for side in (16, 8, 4)]
    for image, column in enumerate(columns):
        maps[0][image, 8, column] = 3.0
    return maps


def test_the_pixels_of_a_polygon_are_matplotlib_s() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 60, 2).tolist()
        corners = rng.uniform(0, 1, (rng.integers(3, 12), 2)) * (width, height)
        centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
        expected = Outline(corners).contains_points(centres.reshape(-1, 2)).reshape(height, width)
        polygon = tuple((x, y) for x, y in corners.tolist())
        np.testing.assert_array_equal(polygon_pixels(polygon, (height, width)), expected)


def test_a_polygon_that_crosses_itself_is_empty_in_its_middle() -> None:
    inside = polygon_pixels(STAR, (64, 64))
    assert inside[12, 32]
    assert not inside[32, 32]


def test_a_pixel_counts_where_its_centre_is_inside() -> None:
    square = ((1.5, 1.0), (3.5, 1.0), (3.5, 3.0), (1.5, 3.0))
    assert polygon_pixels(square, (4, 5)).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]


def test_what_lies_in_any_inspected_polygon_counts_and_in_no_ignored_one() -> None:
    right = tuple((x + 32, y) for x, y in LEFT)
    both = inspected_pixels(Regions(size=(64, 64), inspect=(LEFT, right), ignore=(STAR,)), (64, 64))
    np.testing.assert_array_equal(both, ~polygon_pixels(STAR, (64, 64)))
    assert inspected_pixels(Regions(size=(64, 64), inspect=(LEFT,)), (64, 64)).mean() == 0.5
    with pytest.raises(ValueError, match="read-only"):
        both[0, 0] = False


def test_nothing_left_and_maps_of_another_size_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^regions leave nothing to inspect$"):
        inspected_pixels(Regions(size=(64, 64), inspect=(LEFT,), ignore=(LEFT,)), (64, 64))
    regions = Regions(size=(70, 40), ignore=(((0.0, 0.0), (9.0, 0.0), (0.0, 9.0)),))
    assert inspected_pixels(regions, (64, 96)).shape == (64, 96)  # an image that kept its size, filled
    with pytest.raises(
        ValueError, match=r"are for images of 70 x 40 pixels; found an anomaly map of 96 x 96"
    ):
        inspected_pixels(regions, (96, 96))


def test_a_defect_in_an_ignored_place_is_not_reported_and_one_beside_it_is() -> None:
    distances = blots(3, 12)
    maps = remove_background(fuse_distances(distances, IGNORING.fusion), None, IGNORING.regions)
    verdict = judge(maps, IGNORING)
    assert verdict.pred_label[:, 0].tolist() == [False, True]
    assert verdict.pred_score[:, 0].tolist() == [0.0, pytest.approx(3.0, rel=0.3)]
    assert not verdict.pred_mask[:, :, :32].any()
    assert verdict.pred_mask[1, :, 32:].any()
    without = judge(fuse_distances(distances, CALIBRATION.fusion), CALIBRATION)
    assert without.pred_label.all()
    np.testing.assert_array_equal(verdict.anomaly_map[:, :, 32:], without.anomaly_map[:, :, 32:])


@pytest.mark.parametrize("masked", [False, True])
def test_scores_without_maps_are_those_with_maps(masked: bool) -> None:
    rng = np.random.default_rng(0)
    distances = [rng.uniform(0, 4, (3, side, side)).astype(np.float32) for side in (16, 8, 4)]
    calibration = replace(IGNORING, score_share=0.01, smoothing_sigma=2.0, stage_weights=(1.0, 2.0, 0.5))
    foreground = rng.uniform(size=(3, 64, 64)) > 0.3 if masked else None
    maps = remove_background(fuse_distances(distances, calibration.fusion), foreground, calibration.regions)
    scores = judge_scores(distances, calibration, foreground=foreground)
    np.testing.assert_allclose(scores.pred_score, judge(maps, calibration).pred_score, rtol=1e-6)


def test_a_part_that_lies_in_no_region_is_not_judged() -> None:
    foreground = np.ones((2, 64, 64), bool)
    foreground[1, :, 32:] = False
    with pytest.raises(ValueError, match=r"^image 2 of 2 cannot be judged: its part lies in none of"):
        counted_pixels(foreground, IGNORING.regions, (2, 64, 64))


def test_what_is_not_finite_is_an_error_where_it_is_ignored_too() -> None:
    distances = blots(3)
    distances[0][0, 8, 3] = np.nan
    with pytest.raises(ValueError, match="image 1 of 1 cannot be judged"):
        judge_scores(distances, IGNORING)


def test_a_calibration_keeps_its_regions_as_json_and_in_its_id() -> None:
    assert Calibration.from_json(IGNORING.to_json()) == IGNORING
    moved = replace(IGNORING, regions=Regions(size=(64, 64), ignore=(STAR,)))
    assert len({release_id_of(one, "code") for one in (CALIBRATION, IGNORING, moved)}) == 3


def test_without_regions_json_and_id_are_those_of_before_there_were_any() -> None:
    before = replace(CALIBRATION, image_size=256, smoothing_sigma=4.0, pool_size=5, stage_weights=(1.0,) * 3)
    assert "regions" not in before.to_json()
    assert release_id_of(replace(before, pixel_threshold=0.25), "code") == 4591635901084583727


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": [32, 32]}, r"a region has a corner|regions of \(32, 32\) pixels, expected \(64, 64\)"),
        ({"size": [64]}, "expected a width and a height"),
        ({"ignore": [[[0, 0], [1, 1]]]}, "a region has 2 corners; expected at least 3"),
        ({"ignore": [[[0, 0], [1, 1], [65, 0]]]}, "a corner at"),
        ({"ignore": [[[0, 0], [1, 1], [float("nan"), 0]]]}, "a corner at"),
        ({"ignore": [[[0, 0], [1, 1], [1]]]}, "lists of polygons"),
        ({"ignore": 3}, "lists of polygons"),
        ({"more": 1}, "regions have the fields"),
    ],
)
def test_regions_that_cannot_be_are_refused(change: dict[str, Any], reason: str) -> None:
    values = json.loads(IGNORING.to_json())
    values["regions"] |= change
    with pytest.raises(ValueError, match=reason):
        Calibration.from_json(json.dumps(values))


def test_there_is_a_most_of_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_regions, "MOST_CORNERS", 7)
    with pytest.raises(ValueError, match="more than 7 corners"):
        Regions(size=(64, 64), ignore=(LEFT, LEFT))
