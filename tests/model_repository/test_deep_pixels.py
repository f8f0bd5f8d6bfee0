"""More than 8 bits a channel: the bit depth says what is white; TIFFs of every number; how large an image may be."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model_repository.image_decoder.deep_pixels import DeepPixels, ImageError
from model_repository.image_decoder.image_decoding import (
    decode_image,
    decode_pixels,
    is_deep,
    read_image,
    to_rgb,
)

GREY_12 = np.array([[0, 1029, 2054, 4095]], np.uint16)
GREY_8 = [0, 64, 128, 255]  # the same in 8 bits: values times 255 / 4095, rounded


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, colour_type: int, rows: NDArray[np.uint16]) -> bytes:
    """16-bit channels, which Pillow reads and does not write; `rows` [H, W * C]."""
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def red_channel(encoded: bytes, bit_depth: int) -> list[int]:
    pixels = np.asarray(decode_image(encoded, bit_depth=bit_depth))
    return [int(value) for value in pixels[0, :, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_in_16_are_read_as_12(kind: str) -> None:
    encoded = file_of(Image.fromarray(GREY_12), kind)
    assert red_channel(encoded, 12) == GREY_8
    pixels = decode_pixels(encoded)
    assert isinstance(pixels, DeepPixels)
    assert pixels.bit_depth() == 12
    np.testing.assert_array_equal(np.asarray(to_rgb(Image.fromarray(GREY_12), bit_depth=12))[0, :, 1], GREY_8)


def test_both_bytes_of_16_bit_colours_are_read() -> None:
    """Pillow itself gives the higher bytes alone: 12 bits would come out as 0 to 15."""
    rgb = np.array([[0, 1029, 2054, 4095, 4095, 257]], np.uint16)  # two pixels
    rgba = np.array([[4095, 2054, 1029, 65535, 4095, 2054, 1029, 0]], np.uint16)
    assert np.asarray(decode_image(png(2, 1, 2, rgb), bit_depth=12)).tolist() == [
        [[0, 64, 128], [255, 255, 16]]
    ]
    assert np.asarray(decode_image(png(2, 1, 6, rgba), bit_depth=12)).tolist() == [
        [[255, 128, 64], [0, 0, 0]]
    ]


def test_16_bit_grey_with_alpha_is_read_as_16_bits_alone() -> None:
    encoded = png(1, 1, 4, np.array([[25700, 65535]], np.uint16))
    assert red_channel(encoded, 16) == [100]
    with pytest.raises(ImageError, match=r"expected at most 4,095, the white of 12 bits .*--bit-depth 16"):
        decode_image(encoded, bit_depth=12)


def test_values_within_8_bits_are_taken_as_they_are() -> None:
    assert red_channel(file_of(Image.fromarray(np.array([[0, 77, 255]], np.uint16)), "PNG"), 8) == [
        0,
        77,
        255,
    ]


@pytest.mark.parametrize(
    ("values", "bit_depth", "message"),
    [
        (np.array([[4095]], np.uint16), 8, r"has uint16 values up to 4,095; expected at most 255, .* 8 bits"),
        (np.array([[4096]], np.uint16), 12, r"has .* up to 4,096; expected at most 4,095, .*--bit-depth 14"),
        (np.array([[0, -1]], np.int32), 16, r"has negative values, down to -1; expected numbers from 0"),
        (np.array([[0, np.nan]], np.float32), 1, "has values that are not finite"),
        (np.array([[0, np.inf]], np.float32), 1, "has values that are not finite"),
        (np.array([[0.5]], np.float32), 12, r"has float32 values up to 0\.5; .* train with --bit-depth 1"),
        (np.array([[1.5]], np.float32), 1, r"has float32 values up to 1\.5; expected at most 1"),
        (np.array([[1e12]], np.float32), 32, "expected at most those of 32 bits"),
    ],
)
def test_what_the_bit_depth_does_not_allow_is_refused(
    values: NDArray[Any], bit_depth: int, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(file_of(Image.fromarray(values), "TIFF"), bit_depth=bit_depth)


@pytest.mark.parametrize(
    ("values", "bit_depth"), [([[0, 0.25, 0.5, 1]], 1), ([[0, 1023.75, 2047.5, 4095]], 12)]
)
def test_floating_point_pixels(values: list[list[float]], bit_depth: int) -> None:
    encoded = file_of(Image.fromarray(np.array(values, np.float32)), "TIFF")
    assert red_channel(encoded, bit_depth) == [0, 64, 128, 255]
    pixels = decode_pixels(encoded)
    assert isinstance(pixels, DeepPixels)
    assert pixels.bit_depth() == bit_depth


@pytest.mark.parametrize("kind", ["int16", "uint32", "int32", "uint64", "float16", "float32", "float64"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_every_number_of_a_colour_tiff_is_read(kind: str, planes: str) -> None:
    values = np.array([[[0, 1024, 2048], [4080, 16, 32]]]).astype(kind)  # exact in 16-bit floats
    stored = np.moveaxis(values, -1, 0) if planes == "separate" else values
    pixels = np.asarray(decode_image(tiff(stored, photometric="rgb", planarconfig=planes), bit_depth=12))
    assert pixels.tolist() == [[[0, 64, 128], [254, 1, 2]]]


def test_deep_planes_one_after_another_are_not_misread() -> None:
    """Pillow takes them for 8 bits, without a word."""
    values = np.array([[[1029, 0], [2054, 0], [4095, 0]]], np.uint16)
    encoded = tiff(np.moveaxis(values, 1, 0), photometric="rgb", planarconfig="separate")
    assert np.asarray(decode_image(encoded, bit_depth=12)).tolist() == [[[64, 128, 255], [0, 0, 0]]]


@pytest.mark.parametrize(
    "options", [{"byteorder": ">"}, {"compression": "zlib"}, {"photometric": "miniswhite"}]
)
def test_other_ways_to_store_12_bits(options: dict[str, Any]) -> None:
    stored = 4095 - GREY_12 if options.get("photometric") else GREY_12
    assert red_channel(tiff(stored, **options), 12) == GREY_8


@pytest.mark.parametrize("n_channels", [2, 5])
def test_channels_without_a_meaning_are_refused_or_left_out(n_channels: int) -> None:
    values = np.zeros((4, 4, n_channels), np.float64)
    encoded = tiff(values, photometric="minisblack", planarconfig="contig")
    if n_channels == 2:  # the second counts as alpha
        assert red_channel(encoded, 8) == [0] * 4
        return
    with pytest.raises(ImageError, match=r"is a TIFF with 5 channels of float64, .*expected grey or RGB"):
        decode_image(encoded)


def test_without_tifffile_it_is_said_which_tiffs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = tiff(np.zeros((4, 4, 3), np.float32), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        ImageError, match=r"is a TIFF of a kind that Pillow cannot read; expected 1 or 3 channels"
    ):
        decode_image(encoded)


def test_a_turned_tiff_of_tifffiles_is_upright() -> None:
    values = np.zeros((2, 3, 3), np.float32)
    values[0, 0] = 1
    encoded = tiff(values, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    pixels = np.asarray(decode_image(encoded, bit_depth=1))
    assert pixels.shape == (3, 2, 3)
    assert pixels[0, 1].tolist() == [255] * 3  # turned clockwise: top left becomes top right


def test_lab_is_converted() -> None:
    grey = Image.new("RGB", (2, 2), (120, 120, 120))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    image = ImageCms.applyTransform(grey, transform)
    assert image is not None
    pixels = np.asarray(decode_image(file_of(image, "TIFF"))).astype(int)
    assert np.abs(pixels - 120).max() <= 2


def test_the_highest_of_32_bits_is_no_sign() -> None:
    assert red_channel(tiff(np.array([[0, 2**31, 2**32 - 1]], np.uint32)), 32) == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_8_bits_are_not_deep(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.png" if mode in ("LA", "P", "RGBA") else "a.tif")
    Image.new(mode, (2, 2)).save(path)
    assert not is_deep(path)
    assert read_image(path).mode == "RGB"


def test_deep_files_are_told_by_their_headers(tmp_path: Path) -> None:
    Image.fromarray(GREY_12).save(tmp_path / "grey.png")
    (tmp_path / "colour.png").write_bytes(png(1, 1, 2, np.zeros((1, 3), np.uint16)))
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(GREY_12.astype(np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "pillow cannot.tif").write_bytes(tiff(np.zeros((4, 4, 3), np.float64), photometric="rgb"))
    deep = {path.name for path in tmp_path.iterdir() if is_deep(path)}
    assert deep == {"grey.png", "colour.png", "float.tif", "pillow cannot.tif"}
    assert not is_deep(tmp_path / "none.png")


def test_large_scans_are_read_without_pillows_warning(tmp_path: Path) -> None:
    scan = Image.new("1", (11_000, 9_000))
    noise = np.random.default_rng(0).integers(0, 2, (100, 11_000), np.uint8)
    scan.paste(Image.fromarray(noise * 255), (0, 0))  # all white, it would be a bomb
    scan.save(tmp_path / "99MP.png")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decode_pixels((tmp_path / "99MP.png").read_bytes()), Image.Image)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_of_pixels_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = file_of(Image.new("L", (2000, 1000)), "PNG")
    monkeypatch.setenv("ASTMFR_MAX_MEGAPIXELS", "1.5")
    with pytest.raises(
        ImageError,
        match=r"is too large: 2000 x 1000 are 2\.0 megapixels; expected at most 1\.5; .*set ASTMFR_MAX_MEGAPIXELS",
    ):
        decode_image(encoded)
    monkeypatch.setenv("ASTMFR_MAX_MEGAPIXELS", "2")
    assert decode_image(encoded).size == (2000, 1000)
    for wrong in ("none", "nan", "-1"):
        monkeypatch.setenv("ASTMFR_MAX_MEGAPIXELS", wrong)
        with pytest.raises(
            ImageError, match=rf"ASTMFR_MAX_MEGAPIXELS is '{wrong}'; expected a number above 0"
        ):
            decode_image(encoded)
