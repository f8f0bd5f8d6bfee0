from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.pictures.overlays import (
    ANOMALOUS_COLOUR,
    CAPTION,
    COLOUR_STOPS,
    CONTOUR_COLOUR,
    FULL_SCALE,
    GOOD_COLOUR,
    OPACITY,
    PANEL,
    _contour,
    colourise,
    draw_overlay,
)
from tests.client.samples import make_verdict

SIZE = 64
LUMA = np.array([0.299, 0.587, 0.114])


def panels(image: Image.Image, anomaly_map: NDArray[np.float32], threshold: float) -> list[NDArray[np.uint8]]:
    """The plain image and the image under its map."""
    picture = np.asarray(draw_overlay(image, make_verdict(anomaly_map, threshold=threshold)))
    return [picture[CAPTION:, :PANEL], picture[CAPTION:, PANEL:]]


def with_square(level: float) -> NDArray[np.float32]:
    """A map that is `level` in its middle quarter and 0 elsewhere."""
    anomaly_map = np.zeros((SIZE, SIZE), np.float32)
    anomaly_map[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = level
    return anomaly_map


def test_colours_grow_brighter_with_the_value() -> None:
    colours = colourise(np.linspace(0, 1, 101, dtype=np.float32)[None])
    assert colours.shape == (1, 101, 3)
    brightness = colours[0] @ LUMA
    assert (np.diff(brightness) > 0).all()
    assert brightness[0] < 5
    assert brightness[-1] > 230


def test_colours_at_the_stops_between_them_and_beyond_the_ends() -> None:
    values = np.array([[-3, 0, 0.125, 0.25, 1, 7]], np.float32)
    between = (COLOUR_STOPS[0] + COLOUR_STOPS[1]) / 2
    expected = [
        COLOUR_STOPS[0],
        COLOUR_STOPS[0],
        between,
        COLOUR_STOPS[1],
        COLOUR_STOPS[-1],
        COLOUR_STOPS[-1],
    ]
    np.testing.assert_allclose(colourise(values)[0], expected, atol=1e-4)


def test_contour_is_the_regions_own_outermost_pixels() -> None:
    region = np.zeros((7, 8), bool)
    region[2:6, 2:7] = True
    expected = region.copy()
    expected[3:5, 3:6] = False
    np.testing.assert_array_equal(_contour(region), expected)


def test_the_pictures_edge_is_no_contour() -> None:
    region = np.zeros((5, 5), bool)
    region[:, :3] = True
    expected = np.zeros((5, 5), bool)
    expected[:, 2] = True
    np.testing.assert_array_equal(_contour(region), expected)
    assert not _contour(np.ones((5, 5), bool)).any()


@pytest.mark.parametrize("size", [(64, 64), (50, 200), (700, 300)])
def test_picture_is_two_squares_under_a_caption(size: tuple[int, int]) -> None:
    picture = draw_overlay(Image.new("RGB", size), make_verdict(with_square(2.0)))
    assert (picture.mode, picture.size) == ("RGB", (2 * PANEL, CAPTION + PANEL))


def test_the_left_panel_is_the_image_itself() -> None:
    image = Image.effect_noise((PANEL, PANEL), 80).convert("RGB")
    left, right = panels(image, with_square(2.0), threshold=1.0)
    np.testing.assert_array_equal(left, np.asarray(image))
    assert (left != right).any()


def test_the_contour_goes_round_what_exceeds_the_threshold() -> None:
    _, right = panels(Image.new("RGB", (SIZE, SIZE), "gray"), with_square(2.0), threshold=1.0)
    rows, columns = np.nonzero((right == CONTOUR_COLOUR).all(axis=2))
    scale = PANEL / SIZE
    for positions in (rows, columns):
        assert positions.min() == pytest.approx(SIZE / 4 * scale, abs=scale)
        assert positions.max() == pytest.approx(3 * SIZE / 4 * scale, abs=scale)
    assert len(rows) == pytest.approx(4 * SIZE / 2 * scale, rel=0.1)


def test_no_contour_below_the_threshold() -> None:
    _, right = panels(Image.new("RGB", (SIZE, SIZE), "gray"), with_square(0.9), threshold=1.0)
    assert not (right == CONTOUR_COLOUR).all(axis=2).any()


def test_the_same_multiple_of_the_threshold_has_the_same_colour_on_every_picture() -> None:
    image = Image.new("RGB", (SIZE, SIZE), "black")
    _, low = panels(image, with_square(0.5), threshold=1.0)
    _, high = panels(image, with_square(5.0), threshold=10.0)
    np.testing.assert_array_equal(low, high)
    middle = low[PANEL // 2, PANEL // 2]
    expected = OPACITY * colourise(np.array([[0.5 / FULL_SCALE]], np.float32))[0, 0]
    np.testing.assert_allclose(middle, expected, atol=1)


@pytest.mark.parametrize(("level", "colour"), [(0.5, GOOD_COLOUR), (2.0, ANOMALOUS_COLOUR)])
def test_the_caption_has_the_verdicts_colour(level: float, colour: tuple[int, int, int]) -> None:
    picture = draw_overlay(Image.new("RGB", (SIZE, SIZE)), make_verdict(with_square(level)))
    assert picture.getpixel((1, 1)) == colour
    strip = np.asarray(picture)[:CAPTION]
    assert (strip == 255).all(axis=2).any()  # something is written on it


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.inf])
def test_any_threshold_can_be_drawn(threshold: float) -> None:
    _, right = panels(Image.new("RGB", (SIZE, SIZE), "black"), with_square(2.0), threshold=threshold)
    brightness = right @ LUMA
    shown = brightness[PANEL // 2, PANEL // 2] > brightness[-1, -1]
    assert shown == (threshold != np.inf)


@pytest.mark.parametrize(("shape", "height"), [((48, 96), PANEL // 2), ((96, 48), PANEL)])
def test_panels_have_the_shape_that_the_server_sees(shape: tuple[int, int], height: int) -> None:
    picture = draw_overlay(Image.new("RGB", (200, 50)), make_verdict(np.zeros(shape, np.float32)))
    assert picture.size == (2 * PANEL, CAPTION + height)
