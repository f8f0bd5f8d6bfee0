"""Sizes of squares and other rectangles: read, written, and refused."""

from __future__ import annotations

from typing import Any

import pytest

from model_repository.image_size import (
    ImageSize,
    height_width,
    image_size,
    n_pixels,
    parse_size,
    size_text,
    square_side,
    stage_shape,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (256, 256),
        ("256", 256),
        ("384x512", (384, 512)),
        ("384X512", (384, 512)),
        ([64, 2048], (64, 2048)),
        ((96, 32), (96, 32)),
        ("128x128", 128),  # a square is one number, however it was written
        ([128, 128], 128),
    ],
)
def test_a_size_is_read_in_each_of_its_forms(value: Any, expected: ImageSize) -> None:
    assert parse_size(value) == expected
    assert parse_size(size_text(expected)) == expected


@pytest.mark.parametrize(
    "value", [True, None, 1.5, "", "auto", "64x", "x64", "64x64x3", [], [64, 96, 3], "64 96"]
)
def test_another_form_is_refused(value: Any) -> None:
    with pytest.raises(
        ValueError, match="expected a side in pixels, height x width such as 384x512, or native"
    ):
        parse_size(value)


@pytest.mark.parametrize("value", [0, -64, 100, 2080, "64x100", "0x64", [64, 2080], 10**23])
def test_a_side_that_the_networks_do_not_take_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="multiples of 32 from 32 to 2048"):
        parse_size(value)


def test_height_stands_before_width() -> None:
    strip = image_size(64, 96)
    assert (strip, image_size(64, 64)) == ((64, 96), 64)
    assert (height_width(strip), height_width(64)) == ((64, 96), (64, 64))
    assert (size_text(strip), n_pixels(strip), stage_shape(strip, 16)) == ("64x96", 6144, (4, 6))


def test_what_measures_squares_alone_says_so() -> None:
    assert square_side(128) == 128
    with pytest.raises(ValueError, match="expected a square, found 64x96 pixels; take a square --image-size"):
        square_side((64, 96))
