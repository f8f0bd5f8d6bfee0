"""A client learns size and shape from what is served, sends images accordingly, and shows maps of the image alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.core.answers import Answer
from client.core.category import read_category
from client.core.errors import NotServed
from client.core.inputs import Prepared
from client.core.requests import Place, Question, make_request
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.image_decoder.image_decoding import resize_image
from model_repository.image_size import NATIVE, ImageSize

SIZE = (64, 96)
WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8))


def config(dims: list[int], **parameters: str) -> Any:
    return SimpleNamespace(
        input=[SimpleNamespace(name="image", dims=dims)],
        output=[SimpleNamespace(name=name) for name in VERDICT_OUTPUTS],
        max_batch_size=4,
        parameters={name: SimpleNamespace(string_value=value) for name, value in parameters.items()},
    )


def test_height_and_width_are_those_of_the_served_tensor() -> None:
    square, strip = (read_category(config([*side, 3]), "pill", url="") for side in ((64, 64), SIZE))
    assert (square.image_size, square.keep_aspect) == (64, False)
    assert (strip.image_size, strip.keep_aspect) == (SIZE, False)
    assert read_category(config([*SIZE, 3], aspect="keep"), "pill", url="").keep_aspect
    assert read_category(config([-1, -1, 3]), "pill", url="").image_size == NATIVE


@pytest.mark.parametrize("dims", [[], [64], [64, 96], [64, 96, 1], [0, 96, 3], [64, 96, 3, 1], [-1, 96, 3]])
def test_another_tensor_is_no_category_s(dims: list[int]) -> None:
    with pytest.raises(NotServed, match=r"takes images \[.*\] in batches of up to 4"):
        read_category(config(dims), "pill", url="")


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_maps_and_defects_are_of_the_image_alone(keep_aspect: bool) -> None:
    question = Question(VERDICT_OUTPUTS, None)
    request = make_request(
        [Prepared(WIDE)], question, category="pill", image_size=SIZE, place=None, keep_aspect=keep_aspect
    )
    assert request.map_shape == (1, *SIZE)
    expected = resize_image(WIDE, SIZE, keep_aspect=keep_aspect)
    np.testing.assert_array_equal(request.pixels, expected[None])
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 2:5, 10:20] = True  # in what is filled above the image, where its shape is kept
    mask[0, 13:32, :48] = True
    values = {
        "anomaly_map": mask.astype(np.float32),
        "pred_mask": mask,
        "pred_score": np.ones((1, 1), np.float32),
        "pred_label": np.ones((1, 1), bool),
        "threshold": np.zeros((1, 1), np.float32),
        "release_id": np.ones((1, 1), np.int64),
    }
    (verdict,) = Answer(request, values, 1.0).verdicts()
    boxes = [(each.left, each.top, each.width, each.height) for each in verdict.defects]
    if keep_aspect:
        assert verdict.anomaly_map.shape == verdict.mask.shape == (38, 96)
        assert boxes == [(0, 0, 50, 20)]
    else:
        assert verdict.anomaly_map.shape == SIZE
        assert len(boxes) == 2


@pytest.mark.parametrize(
    ("image_size", "keep_aspect", "expected"),
    [
        (SIZE, False, None),
        (SIZE, True, "13,0,51,96;0,0,64,96"),
        (NATIVE, False, "0,0,40,100"),
    ],
)
def test_the_server_learns_where_pixels_show_the_images(
    image_size: ImageSize, keep_aspect: bool, expected: str | None
) -> None:
    fitting = Image.new("RGB", (96, 64))
    images = [Prepared(WIDE)] if image_size == NATIVE else [Prepared(WIDE), Prepared(fitting)]
    asked: Any = {"category": "pill", "image_size": image_size, "place": None, "keep_aspect": keep_aspect}
    request = make_request(images, Question(VERDICT_OUTPUTS, None), **asked)
    parameters = request.message(timeout_s=1).parameters
    assert (parameters["shown"].string_param if "shown" in parameters else None) == expected
    files = make_request([Prepared(b"a file")], Question(VERDICT_OUTPUTS, None), **asked)
    assert "shown" not in files.message(timeout_s=1).parameters  # the decoder knows it


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("image_size", [48, SIZE, NATIVE])
def test_an_array_is_sent_as_its_picture_is(image_size: ImageSize, keep_aspect: bool) -> None:
    picture, array = Prepared(WIDE), Prepared(np.asarray(WIDE))
    batches = [[picture], [array]] if image_size == NATIVE else [[picture, picture], [array, picture]]
    asked: Any = {"category": "pill", "image_size": image_size, "place": None, "keep_aspect": keep_aspect}
    first, second = (
        make_request(images, Question(VERDICT_OUTPUTS, None), **asked).message(timeout_s=1)
        for images in batches
    )
    assert first == second


def test_shared_memory_has_room_for_a_rectangle() -> None:
    place = Place("a", 2, SIZE)
    assert place.size == 8 * 2 * 64 * 96
    assert place.offset("pred_mask") == 7 * 2 * 64 * 96
