"""Images that keep their shape where they are resized, as training, server and client do it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model_repository.image_decoder.image_decoding import ImageError, decode_resized, resize_image
from model_repository.image_decoder.resizing import fitted_part

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8))


@pytest.mark.parametrize(
    ("picture", "size", "rows", "columns"),
    [
        ((100, 40), (64, 96), (13, 51), (0, 96)),  # 38.4 rows
        ((40, 100), (64, 96), (0, 64), (35, 61)),  # 25.6 columns
        ((96, 64), (64, 96), (0, 64), (0, 96)),
        ((192, 128), (64, 96), (0, 64), (0, 96)),
        ((30, 30), 64, (0, 64), (0, 64)),
        ((60000, 2), 64, (31, 32), (0, 64)),  # never nothing
        ((2, 60000), (64, 96), (0, 64), (47, 48)),
    ],
)
def test_a_picture_lies_in_the_middle_as_large_as_it_fits(
    picture: tuple[int, int], size: int | tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert fitted_part(picture, size) == (slice(*rows), slice(*columns))


def test_what_is_left_beside_repeats_the_edge() -> None:
    resized = resize_image(NOISE, (64, 96), keep_aspect=True)
    kept = resize_image(NOISE, (38, 96))
    np.testing.assert_array_equal(resized[13:51], kept)
    assert (resized[:13] == kept[0]).all()
    assert (resized[51:] == kept[-1]).all()
    assert resized.dtype == np.uint8


def test_a_picture_of_the_same_shape_is_resized_as_ever() -> None:
    square = NOISE.crop((0, 0, 40, 40))
    np.testing.assert_array_equal(resize_image(square, 32, keep_aspect=True), resize_image(square, 32))
    expected = np.asarray(NOISE.resize((96, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_image(NOISE, (64, 96)), expected)


def test_the_decoder_resizes_with_the_same_function() -> None:
    buffer = io.BytesIO()
    NOISE.save(buffer, "PNG")
    image, size = decode_resized(buffer.getvalue(), (64, 96), keep_aspect=True)
    np.testing.assert_array_equal(image, resize_image(NOISE, (64, 96), keep_aspect=True))
    assert size == (40, 100)


def test_a_picture_that_memory_does_not_hold_is_named_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    buffer = io.BytesIO()
    NOISE.save(buffer, "PNG")
    monkeypatch.setattr(Image.Image, "load", full)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(
        ImageError, match=r"memory .* 100 x 40 are 0\.0 megapixels, which take up to 0 MB; make it smaller"
    ):
        decode_resized(buffer.getvalue(), 64)
