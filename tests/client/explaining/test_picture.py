"""What people see of an explanation: the picture and the table."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.explaining.explanation import Explanation, Maximum, Stage
from client.explaining.picture import BAND, GAP, LARGE, LINE, SIDE, WIDTH, draw_explanation, summary
from client.explaining.table import explanation_table, place_sentence
from client.explaining.usual import Spread, Usual
from client.pictures.overlays import ANOMALOUS_COLOUR, COLOUR_STOPS, GOOD_COLOUR
from tests.client.samples import RELEASE, make_verdict, printed

SPREAD = Spread(0.1, 0.25, 0.5, 0.75, 0.9)
USUAL = Usual(20, SPREAD, (SPREAD, SPREAD, SPREAD))


def explanation(
    size: tuple[int, int] = (160, 160), *, threshold: float = 1.0, usual: Usual | None = USUAL
) -> Explanation:
    """Of a part whose map is 4 in the middle, half of it by stage 1; stage 1 is highest at its upper left cell."""
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[30:34, 30:34] = 4
    stages = []
    for number, (side, share) in enumerate(((16, 0.5), (8, 0.3), (4, 0.2)), start=1):
        distances = np.zeros((side, side), np.float32)
        distances[0, 0] = number
        stages.append(Stage(number, distances, 4 * share, share))
    first, second, third = stages
    return Explanation(
        image="lot/[a]\udcfc.png",
        category="pill",
        synthetic=False,
        verdict=make_verdict(anomaly_map, threshold=threshold, original_size=size),
        maximum=Maximum(size[0] // 2, size[1] // 2, 4.0),
        n_score_pixels=16,
        stages=(first, second, third),
        usual=usual,
    )


@pytest.mark.parametrize(("threshold", "colour"), [(1.0, ANOMALOUS_COLOUR), (5.0, GOOD_COLOUR)])
def test_band_and_maps_have_their_colours(threshold: float, colour: tuple[int, int, int]) -> None:
    picture = draw_explanation(explanation(threshold=threshold), Image.new("RGB", (160, 160), "teal"))
    assert picture.width == WIDTH
    assert picture.getpixel((2, 2)) == colour
    assert picture.getpixel((GAP + 3, BAND + GAP + LINE + 3)) == (0, 128, 128)  # the image
    maps_top = BAND + GAP + LINE + LARGE + GAP + 2 * LINE
    for stage in range(3):
        left = GAP + stage * (SIDE + GAP)
        assert picture.getpixel((left + 2, maps_top + 2)) == tuple(COLOUR_STOPS[-1].astype(int))
        assert picture.getpixel((left + SIDE - 2, maps_top + SIDE - 2)) == tuple(COLOUR_STOPS[0].astype(int))


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (3000, 7), (1, 1)])
def test_images_of_any_shape_keep_it(size: tuple[int, int]) -> None:
    picture = draw_explanation(explanation(size), Image.new("RGB", size, "teal"))
    assert picture.width == WIDTH
    assert picture.height < 2 * WIDTH


def test_what_good_images_give_stands_beside() -> None:
    text = printed(explanation_table(explanation()))
    (first,) = [line for line in text.splitlines() if "stage 1" in line]
    assert [cell.strip() for cell in first.strip("│").split("│")] == [
        "stage 1", "2.0000", "50.0 %", "0.250 to 0.750",
    ]  # fmt: skip
    assert r"lot/[a]\udcfc.png" in text
    assert "20 good images held out from training had scores from 0.100 to 0.900" in summary(explanation())[1]


def test_a_release_that_does_not_say_is_said_not_to() -> None:
    before = explanation(usual=None)
    assert "not known" in printed(explanation_table(before))
    assert summary(before)[1].startswith("The release does not say what good images give")


def test_the_place_is_said_in_the_images_own_pixels() -> None:
    place = "column 320, row 240 of 640 x 480 pixels (4.0000)."
    sentence = f"Anomalous by release {RELEASE}; the anomaly map is highest at {place}"
    assert place_sentence(explanation((640, 480))) == sentence
