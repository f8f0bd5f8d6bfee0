"""Images in every form come to the same pixels; what cannot be taken is named."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from client.core.errors import ImageFileError, ImageTypeError
from client.core.inputs import prepare_pixels
from client.judging.reading import prepare_any

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
FULL = np.full((6, 9, 1), 255, np.uint8)


class Subclass(np.ndarray):
    pass


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"a.b"


def pixels(image: object, *, bit_depth: int = 8) -> np.ndarray:
    prepared = prepare_any(image, bit_depth=bit_depth).sent
    if isinstance(prepared, Image.Image):
        assert prepared.mode == "RGB"
        prepared = np.asarray(prepared)
    assert type(prepared) is np.ndarray
    assert prepared.dtype == np.uint8
    assert prepared.flags.c_contiguous
    return prepared


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RGB),
        Image.fromarray(RGB).convert("RGBA"),
        RGB,
        RGB.astype(np.uint8, order="F"),
        RGB[::-1][::-1],
        np.repeat(RGB, 2, axis=1)[:, ::2],
        np.ma.masked_array(RGB),
        RGB.view(Subclass),
        np.concatenate([RGB, FULL], axis=2),
    ],
)
def test_colour(image: object) -> None:
    np.testing.assert_array_equal(pixels(image), RGB)


@pytest.mark.parametrize("array", [RGB, np.ascontiguousarray(RGB[:, :, ::-1])[:, :, ::-1]])
def test_who_draws_on_an_array_afterwards_changes_nothing(array: np.ndarray) -> None:
    given = array.copy(order="K")
    prepared = prepare_any(given)
    given[:] = 0
    assert prepared.size == (given.shape[1], given.shape[0])
    np.testing.assert_array_equal(np.asarray(prepared.sent), RGB)


@pytest.mark.parametrize("image", [Image.fromarray(GREY), GREY, GREY[..., None]])
def test_grey(image: object) -> None:
    np.testing.assert_array_equal(pixels(image), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("form", [RGB, GREY], ids=["RGB", "grey"])
def test_deeper_images_are_read_with_the_categorys_bit_depth(form: np.ndarray) -> None:
    """A camera of 12 bits fills 0 to 4,095 of an array or of a Pillow image; as 16 bits it would be black."""
    expected = np.broadcast_to(form if form.ndim == 3 else form[..., None], RGB.shape)
    deep = np.rint(form / 255 * 4095).astype(np.uint16)
    np.testing.assert_array_equal(pixels(deep, bit_depth=12), expected)
    if form.ndim == 2:
        np.testing.assert_array_equal(pixels(Image.fromarray(deep), bit_depth=12), expected)
    np.testing.assert_array_equal(pixels(form.astype(np.uint16) * 257, bit_depth=16), expected)
    np.testing.assert_allclose(pixels((form / 255).astype(np.float32), bit_depth=1), expected, atol=1)
    with pytest.raises(
        ImageTypeError, match=r"of uint16; expected uint8 \[H, W\], .* trained on 8 bits a channel"
    ):
        prepare_any(deep)
    if form.ndim == 2:
        with pytest.raises(
            ImageFileError, match=r"^The image has uint16 values up to .*; expected at most 255"
        ):
            prepare_any(Image.fromarray(deep))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16"])
def test_every_mode(mode: str) -> None:
    assert pixels(Image.new(mode, (9, 6))).shape == (6, 9, 3)


def test_a_path_is_read_here(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(RGB).save(path)
    for given in (path, str(path)):
        np.testing.assert_array_equal(pixels(given), RGB)
    for sent in (path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert prepare_any(sent).sent == path.read_bytes()


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
        prepare_any(image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            RGB > 3,
            "is an array [6, 9, 3] of bool; expected uint8 [H, W], RGB [H, W, 3] or RGBA [H, W, 4], as the category",
        ),
        (RGB.transpose(2, 0, 1), "is an array [3, 6, 9] of uint8; expected"),
        (RGB[None], "is an array [1, 6, 9, 3] of uint8; expected"),
        (np.dstack([RGB, GREY]).astype(np.uint16), "is an array [6, 9, 4] of uint16; expected"),
        (GREY > 3, "is an array [6, 9] of bool; expected"),
        (GREY.astype(np.complex64), "is an array [6, 9] of complex64; expected"),
        (RGB[:0], "is an array [0, 9, 3] without pixels"),
        (Image.new("RGB", (0, 3)), "has no pixels (0 x 3)"),
        (
            None,
            "is of type NoneType; expected an image file's path or bytes, a Pillow image, or a numpy array: ",
        ),
        ([RGB], "is of type list; expected"),
    ],
)
def test_what_is_no_image_is_named(image: object, reason: str) -> None:
    with pytest.raises(ImageFileError) as caught:
        prepare_any(image)
    assert caught.value.message.startswith(f"The image {reason}")
    assert caught.value.message.endswith(".")


FLOATS = (RGB / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            FLOATS,
            "is an array [6, 9, 3] of float32; expected uint8 [H, W], RGB [H, W, 3] or RGBA [H, W, 4], as",
        ),
        (RGB.astype(np.float64), "is an array [6, 9, 3] of float64; expected uint8"),
        (RGB.astype(np.int64), "is an array [6, 9, 3] of int64; expected uint8"),
        (
            GREY.astype(np.uint16),
            "is an array [6, 9] of uint16; expected uint8",
        ),  # dark, so that it would pass
        (RGB[0, 0], "is an array [3] of uint8; expected uint8"),
        (np.array(3, np.uint8), "is an array [] of uint8; expected uint8"),
        (RGB[..., :2], "is an array [6, 9, 2] of uint8; expected uint8"),
        (np.array([[None]]), "is an array [1, 1] of object; expected uint8"),
        (RGB[0, 0, 0], "is of type uint8; expected an image file's path or bytes"),
        (
            torch.zeros(3, 6, 9),
            "is of type torch.Tensor, which may be turned into an array with .numpy(); expected",
        ),
        (io.BytesIO(b"x"), "is of type BytesIO, an open file, whose bytes its .read() gives; expected"),
        (
            str(b"\x89PNG"),
            "is a text that is no path (str of 10 characters); expected an image file's path, or",
        ),
        ("\x89PNG\0\0", "is a text that is no path (str of 6 characters); expected an image file's path, or"),
        (BytesPath(), "is a text that is no path (BytesPath of 3 characters); expected an image file's path"),
        (
            memoryview(RGB),
            "is a memoryview of 3 dimensions, and bytes are taken for an image file; give pixels as",
        ),
        (
            np.ma.masked_equal(RGB, RGB.max()),
            "is an array with masked pixels; expected one without, as .filled(0)",
        ),
        (3, "is of type int; expected an image file's path or bytes, a Pillow image, or a numpy array"),
    ],
)
def test_what_does_not_fit_is_a_type_error_that_says_what_does(image: object, reason: str) -> None:
    with pytest.raises(TypeError) as caught:
        prepare_any(image)
    assert isinstance(caught.value, ImageTypeError)  # an error of the client like any other, too
    assert str(caught.value).startswith(f"The image {reason}")
    assert str(caught.value).endswith(".")


def test_deeper_arrays_fit_a_category_of_deeper_images_alone() -> None:
    deep = GREY.astype(np.uint16) * 16
    assert pixels(deep, bit_depth=12).shape == RGB.shape
    assert pixels(FLOATS, bit_depth=1).shape == RGB.shape
    with pytest.raises(
        TypeError, match=r"of bool; expected uint8 .* of numbers from 0 to 4,095, as the category"
    ):
        prepare_any(deep > 3, bit_depth=12)
    with pytest.raises(
        TypeError, match=r"of floating-point numbers from 0 to 1, as the category was trained on"
    ):
        prepare_any(deep > 3, bit_depth=1)


def test_a_deep_image_can_be_read_again_with_another_bit_depth(tmp_path: Path) -> None:
    """As when a category is published anew: what an 8-bit image is does not depend on it."""
    deep = np.rint(GREY / 255 * 4095).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    for image in (deep, path, Image.fromarray(deep)):
        prepared = prepare_any(image, bit_depth=12)
        assert prepared.at(12) is prepared
        assert not prepared.fits(16)
        np.testing.assert_array_equal(
            np.asarray(prepared.at(16).sent), np.asarray(prepare_any(image, bit_depth=16).sent)
        )
        with pytest.raises(ImageFileError, match="expected at most 255"):
            prepared.at(8)
    for image in (RGB, Image.fromarray(RGB)):
        prepared = prepare_any(image, bit_depth=12)
        assert prepared.fits(16)
        assert prepared.at(16) is prepared


@pytest.mark.parametrize("deep", [False, True])
def test_an_image_of_a_stream_is_a_copy_that_nobody_draws_on(deep: bool) -> None:
    array = GREY.astype(np.uint16) if deep else RGB.copy()
    for image in (array, Image.fromarray(array)):
        prepared = prepare_any(image, bit_depth=12, own=True)
        before = np.asarray(prepared.at(13).sent)
        if isinstance(image, np.ndarray):
            image[:] = 0
        else:
            image.paste(0 if deep else (0, 0, 0), (0, 0, *image.size))
        np.testing.assert_array_equal(np.asarray(prepared.at(13).sent), before)
        array = GREY.astype(np.uint16) if deep else RGB.copy()


def test_threads_share_an_open_image_that_is_not_decoded_yet(tmp_path: Path) -> None:
    """Formerly each decoded it at the same time: an error in half of them, and other pixels in the rest."""
    path, exif = tmp_path / "part.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.effect_noise((700, 500), 80).convert("RGB").save(path, exif=exif)
    expected = pixels(path)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            with Image.open(path) as image:
                for found in pool.map(pixels, [image] * 8):
                    np.testing.assert_array_equal(found, expected)


def test_grey_with_its_alpha_multiplied_in_is_read_as_grey_with_alpha() -> None:
    plain = Image.new("LA", (4, 3), (200, 128))
    expected, got = (
        prepare_pixels(image, bit_depth=8, name="It").sent for image in (plain, plain.convert("La"))
    )
    assert isinstance(expected, Image.Image)
    assert isinstance(got, Image.Image)
    assert got.mode == "RGB"
    assert abs(got.getpixel((1, 1))[0] - expected.getpixel((1, 1))[0]) <= 1
