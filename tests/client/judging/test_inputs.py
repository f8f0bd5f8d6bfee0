"""Images in every form come to the same pixels; what cannot be taken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from client.judging.errors import ImageFileError
from client.judging.inputs import prepare

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
FULL = np.full((6, 9, 1), 255, np.uint8)


def pixels(image: object) -> np.ndarray:
    prepared = prepare(image)
    assert isinstance(prepared, Image.Image)
    assert prepared.mode == "RGB"
    return np.asarray(prepared)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RGB),
        Image.fromarray(RGB).convert("RGBA"),
        RGB,
        RGB.astype(np.uint8, order="F"),
        RGB[::-1][::-1],
        np.concatenate([RGB, FULL], axis=2),
    ],
)
def test_colour(image: object) -> None:
    np.testing.assert_array_equal(pixels(image), RGB)


@pytest.mark.parametrize("image", [Image.fromarray(GREY), GREY, GREY[..., None]])
def test_grey(image: object) -> None:
    np.testing.assert_array_equal(pixels(image), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("bit_depth", [12, 16])
def test_deep_grey_is_read_by_the_bit_depth_of_the_category(bit_depth: int) -> None:
    """No guess: 12 bits read as 16 would be a dark picture."""
    deep = np.rint(GREY.astype(float) * (2**bit_depth - 1) / 255).astype(np.uint16)
    for image in (deep, Image.fromarray(deep)):
        read = np.asarray(prepare(image, bit_depth=bit_depth))
        np.testing.assert_array_equal(read, np.repeat(GREY[..., None], 3, axis=2))
    with pytest.raises(ImageFileError, match=rf"expected at most 255, .*--bit-depth {bit_depth}"):
        prepare(np.full((2, 2), 2**bit_depth - 1, np.uint16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16"])
def test_every_mode(mode: str) -> None:
    assert pixels(Image.new(mode, (9, 6))).shape == (6, 9, 3)


def test_a_path_is_read_here(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(RGB).save(path)
    for given in (path, str(path)):
        np.testing.assert_array_equal(pixels(given), RGB)
    for sent in (path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert prepare(sent) == path.read_bytes()


def test_an_open_image_is_turned_upright_as_its_file_is(tmp_path: Path) -> None:
    """Formerly a photograph that was handed over open was judged lying on its side, and unlike its file."""
    path = tmp_path / "part.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as image:
        assert pixels(image).shape == (9, 6, 3)
        np.testing.assert_array_equal(pixels(image), pixels(path))
        assert image.size == (9, 6)  # the caller's own is as it was


def test_an_open_image_that_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with (
        Image.open(path) as image,
        pytest.raises(ImageFileError, match=r"^The image (cannot be read|is truncated or damaged) \(.*\)\.$"),
    ):
        prepare(image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            RGB / 255,
            "is an array [6, 9, 3] of float64; expected uint8 [H, W], [H, W, 3] RGB or [H, W, 4] RGBA",
        ),
        (RGB.transpose(2, 0, 1), "is an array [3, 6, 9] of uint8; expected"),
        (RGB[None], "is an array [1, 6, 9, 3] of uint8; expected"),
        (RGB.astype(np.uint16), "is an array [6, 9, 3] of uint16; expected"),
        (GREY > 3, "is an array [6, 9] of bool; expected"),
        (GREY.astype(np.complex64), "is an array [6, 9] of complex64; expected"),
        (RGB[:0], "is an array [0, 9, 3] without pixels"),
        (Image.new("RGB", (0, 3)), "has no pixels (0 x 3)"),
        (
            None,
            "is of type NoneType; expected a Pillow image, an image file's bytes or path, or a numpy array",
        ),
        ([RGB], "is of type list; expected"),
    ],
)
def test_what_is_no_image_is_named(image: object, reason: str) -> None:
    with pytest.raises(ImageFileError) as caught:
        prepare(image)
    assert caught.value.message.startswith(f"The image {reason}")
    assert caught.value.message.endswith(".")
