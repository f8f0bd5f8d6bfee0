"""Every kind of image file comes out as upright RGB, or is refused with a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from model_repository.image_decoder.image_decoding import (
    ImageError,
    decode_image,
    read_image,
    resize_image,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes, *, bit_depth: int = 8) -> list[list[tuple[int, ...]]]:
    """Rows of RGB pixels."""
    image = decode_image(data, bit_depth=bit_depth)
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def grey(*values: int) -> list[list[tuple[int, ...]]]:
    return [[(value,) * 3 for value in values]]


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rgb_16_bit_png(pixels: list[tuple[int, int, int]]) -> bytes:
    """One row of 16-bit RGB, which Pillow reads and does not write."""
    row = b"\0" + b"".join(struct.pack(">3H", *pixel) for pixel in pixels)
    header = struct.pack(">IIBBBBB", len(pixels), 1, 16, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b""))


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_rgb_is_kept_as_it_is(kind: str) -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(PHOTO, kind))), np.asarray(PHOTO))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_jpeg_and_webp_are_read(kind: str, options: dict[str, object]) -> None:
    orange = Image.new("RGB", (16, 16), (250, 150, 50))
    pixels = np.asarray(decode_image(encoded(orange, kind, **options))).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels - (250, 150, 50)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    levels = np.array([[0, 257, 25700, 32896, 65535]], np.uint16)
    assert decoded(encoded(Image.fromarray(levels), kind), bit_depth=16) == grey(0, 1, 100, 128, 255)


def test_big_endian_16_bit_grey_is_scaled() -> None:
    image = Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 25700, 65535))
    assert decoded(encoded(image, "TIFF"), bit_depth=16) == grey(0, 100, 255)


def test_16_bit_rgb_is_scaled() -> None:
    data = rgb_16_bit_png([(0, 25700, 65535), (51400, 0, 257)])
    assert decoded(data, bit_depth=16) == [[(0, 100, 255), (200, 0, 1)]]


def test_32_bit_grey_within_16_bits_is_scaled() -> None:
    levels = np.array([[0, 25700, 65535]], np.int32)
    assert decoded(encoded(Image.fromarray(levels), "TIFF"), bit_depth=16) == grey(0, 100, 255)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk_jpeg_is_converted(ink: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
    pixels = np.asarray(decode_image(data)).astype(int)
    assert np.abs(pixels - expected).max() <= 2


def test_grey_and_bilevel_are_repeated_over_the_channels() -> None:
    assert decoded(encoded(Image.fromarray(np.uint8([[0, 77, 255]])), "PNG")) == grey(0, 77, 255)
    assert decoded(encoded(Image.fromarray(np.array([[False, True]])), "PNG")) == grey(0, 255)


@pytest.mark.parametrize(("transparency", "second"), [({}, GREEN), ({"transparency": 1}, (0, 0, 0))])
def test_palette_gives_its_colours(transparency: dict[str, object], second: tuple[int, ...]) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    assert decoded(encoded(image, "PNG", **transparency)) == [[RED, second, BLUE]]


def test_alpha_is_composed_over_black() -> None:
    rgba = Image.fromarray(np.uint8([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]]))
    assert decoded(encoded(rgba, "PNG")) == [[(200, 100, 50), (0, 0, 0), (40, 20, 10)]]  # 51 is a fifth


def test_grey_with_alpha_is_composed_over_black() -> None:
    image = Image.merge("LA", (Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 51)))
    assert decoded(encoded(image, "PNG")) == grey(40)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[RED, GREEN]]),
        (2, [[GREEN, RED]]),
        (3, [[GREEN, RED]]),
        (6, [[RED], [GREEN]]),  # turned by 90 degrees clockwise
        (8, [[GREEN], [RED]]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_rotation_is_applied(kind: str, orientation: int, expected: list[list[tuple[int, ...]]]) -> None:
    image = Image.fromarray(np.uint8([[RED, GREEN]]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decoded(encoded(image, kind, exif=exif)) == expected


def test_first_page_of_several_is_read() -> None:
    first, second = Image.new("RGB", (1, 1), RED), Image.new("RGB", (1, 1), GREEN)
    assert decoded(encoded(first, "TIFF", save_all=True, append_images=[second])) == [[RED]]


REFUSED = {
    "empty": (b"", "is empty"),
    "text": (b"no image at all", r"is not an image of a known format \(PNG, JPEG, BMP, TIFF, WEBP\)"),
    "gif": (encoded(Image.new("L", (2, 2)), "GIF"), "is not an image of a known format"),
    "float": (
        encoded(Image.fromarray(np.float32([[0.5]])), "TIFF"),
        r"has float32 values up to 0\.5; expected at most 255, .*--bit-depth 1",
    ),
} | {
    f"truncated {kind}": (encoded(PHOTO, kind)[: len(encoded(PHOTO, kind)) // 2], "is truncated or damaged")
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_image_is_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(ImageError, match=message):
        decode_image(data)


def test_damaged_pixels_are_refused() -> None:
    data = bytearray(encoded(PHOTO, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="is truncated or damaged"):
        decode_image(bytes(data))


def test_an_absurdly_large_image_is_refused_before_it_is_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(ImageError, match="is too large"):
        decode_image(png((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")))


def test_read_image_names_the_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("text")
    for path, message in (
        (broken, r"broken\.png is not an image"),
        (tmp_path / "none.png", r"none\.png cannot be read \(No such file"),
        (tmp_path, r"cannot be read \(Is a directory\)"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(path)
    good = tmp_path / "good.png"
    PHOTO.save(good)
    np.testing.assert_array_equal(np.asarray(read_image(good)), np.asarray(PHOTO))


def test_resize_gives_a_square_of_bytes() -> None:
    resized = resize_image(PHOTO, 16)
    assert resized.shape == (16, 16, 3)
    assert resized.dtype == np.uint8


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200  # one column in four: picking single pixels would give 0 or 200
    resized = resize_image(Image.fromarray(stripes), 16)
    assert (resized[:, 1:-1] == 50).all()  # at the border the filter is cut off


@pytest.mark.parametrize("size", [8, 24, 64])
def test_resize_equals_torch_with_antialias(size: int) -> None:
    pixels: NDArray[np.uint8] = np.asarray(PHOTO)
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    expected = F.interpolate(channels_first, (size, size), mode="bilinear", antialias=True)[0]
    difference = resize_image(PHOTO, size) - expected.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1
