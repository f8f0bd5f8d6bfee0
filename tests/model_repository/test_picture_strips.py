"""Strips of large pictures: within a budget, all of the picture once, and joined as if it were one piece."""

from __future__ import annotations

import numpy as np
import pytest

from model_repository.picture_strips import in_strips, join, strips

MARGIN = 64


@pytest.mark.parametrize(("height", "width"), [(960, 320), (320, 960), (992, 96), (640, 640)])
def test_strips_give_each_pixel_once_within_the_budget(height: int, width: int) -> None:
    budget = 256 * min(height, width)
    over = strips(height, width, margin=MARGIN, pixels=budget)
    assert [strip.start for strip in over[1:]] == [strip.stop for strip in over[:-1]]
    assert (over[0].start, over[-1].stop) == (0, max(height, width))
    for strip in over:
        assert strip.axis == (0 if height >= width else 1)
        assert strip.seen_start == max(0, strip.start - MARGIN)
        assert strip.seen_stop == min(max(height, width), strip.stop + MARGIN)
        assert (strip.seen_stop - strip.seen_start) * min(height, width) <= budget
        assert not any(side % 32 for side in (strip.start, strip.stop, strip.seen_start, strip.seen_stop))


def test_a_picture_within_the_budget_is_one_strip() -> None:
    (only,) = strips(96, 160, margin=MARGIN, pixels=96 * 160)
    assert (only.start, only.stop, only.seen_start, only.seen_stop) == (0, 160, 0, 160)


def test_margins_that_take_more_than_the_budget_are_kept() -> None:
    over = strips(960, 32, margin=256, pixels=32 * 32)
    assert {strip.seen_start for strip in over} == {max(0, strip.start - 256) for strip in over}
    assert len(over) < 5  # of 32 rows each they would be 30, and all of them margins


@pytest.mark.parametrize("shape", [(640, 96), (96, 640)])
def test_what_looks_no_farther_than_the_margin_is_the_same_in_strips(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        """Means of cells of 4 and of 16 pixels, and of their neighbours."""
        maps = []
        for stride in (4, 16):
            batch, height, width, _ = pixels.shape
            cells = pixels.reshape(batch, height // stride, stride, width // stride, stride, 3).mean(
                axis=(2, 4, 5)
            )
            padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
            maps.append(
                sum(np.roll(padded, (i, j), (1, 2))[:, 1:-1, 1:-1] for i in (-1, 0, 1) for j in (-1, 0, 1))
            )
        return maps

    whole = compute(images)
    for ours, theirs in zip(in_strips(compute, images, margin=32, pixels=96 * 160), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_feature_maps_are_cut_and_joined_along_their_own_axis() -> None:
    features = np.random.default_rng(0).random((1, 3, 80, 12))  # of 640 x 96 pixels, a position every 8
    over = strips(640, 96, margin=32, pixels=96 * 160)
    parts = [strip.cut(features, rows_axis=2) for strip in over]
    assert parts[0].shape == (1, 3, 20, 12)
    np.testing.assert_array_equal(join(parts, over, rows_axis=2), features)
