"""Files that a server is sent and must refuse: what no camera makes, what a line cuts short, what means harm.

`BAD_PICTURES` has a function a case, each gives the file's bytes, and what the refusal says of it. They are built, not
kept: the bombs are large once they are unpacked, and the files that lie are best read as code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.model_repository.bad_jpegs import (
    closed_jpeg,
    huge_jpeg_header,
    jpeg_of_12_bits,
    jpeg_of_a_thousand_scans,
    jpeg_of_five_channels,
    jpeg_of_grey_scans_alone,
    lossless_jpeg,
)
from tests.model_repository.picture_bytes import (
    LONG,
    PNG_START,
    chunk,
    encoded,
    one_colour_png,
    photo,
    png,
    png_header,
    tiff,
    tiff_tags,
    webp_chunk,
    webp_extended,
    zeros_packed,
)

KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
UNKNOWN, DAMAGED, TOO_LARGE = "is not an image of a known format", "is truncated or damaged", "is too large"
BOMB = "is packed too densely"


@dataclass(frozen=True)
class BadPicture:
    """A file to refuse.

    Attributes:
        make: gives its bytes.
        reason: a part of the refusal, as a regular expression.
    """

    make: Callable[[], bytes]
    reason: str


def cut(kind: str, share: float) -> bytes:
    whole = encoded(photo(), kind)
    return whole[: int(share * len(whole))]


def png_start_before_a_jpeg() -> bytes:
    return PNG_START + encoded(photo(), "JPEG")


def png_with_another_first_byte() -> bytes:
    return b"\x8a" + encoded(photo(), "PNG")[1:]


def text() -> bytes:
    return b"the camera was not ready\n" * 40


def svg() -> bytes:
    return b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>'


def animated_gif() -> bytes:
    return encoded(photo(), "GIF", save_all=True, append_images=[photo(seed=1)])


def jpeg_2000() -> bytes:
    return b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200)


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def pdf() -> bytes:
    return b"%PDF-1.7\n" + bytes(200)


def zeros(n_bytes: int) -> Callable[[], bytes]:
    return lambda: bytes(n_bytes)


def huge_png_header() -> bytes:
    return png_header(50_000, 50_000) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def huge_bmp_header() -> bytes:
    data = bytearray(encoded(photo(), "BMP"))
    data[18:26] = struct.pack("<ii", 50_000, 50_000)
    return bytes(data)


def huge_tiff_header() -> bytes:
    return tiff(tiff_tags(50_000, 50_000, n_bytes=4), bytes(4))


def huge_webp_header() -> bytes:
    return webp_extended(50_000, 50_000, webp_chunk(b"VP8 ", bytes(40)))


def webp_canvas_of_four_billion_pixels() -> bytes:
    lossless = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    return webp_extended(1 << 24, 255, lossless)


def tiff_of_two_sizes() -> bytes:
    """Pillow refuses to say how large it is; tifffile, which is asked then, believes the header."""
    return tiff(tiff_tags(50_000, 50_000, n_bytes=4, bits=(64,)), bytes(4))


def long_line() -> bytes:
    """A side that no sensor has: the filter of a resize would take gigabytes for its weights."""
    return one_colour_png(60_000_000, 1, bits=8)


def bilevel_bomb() -> bytes:
    return one_colour_png(13_000, 13_000, bits=1)


def webp_bomb() -> bytes:
    return encoded(Image.new("L", (5_000, 4_000)), "WEBP", lossless=True, quality=0, method=0)


def tiff_strips_all_alike() -> bytes:
    """4,000 rows that all lie in the same place: Pillow unpacks it again and again."""
    width, height = 40_000, 4_000
    tags = [
        (number, kind, [-1] * height if number == 273 else [width] * height if number == 279 else values)
        for number, kind, values in tiff_tags(width, height, n_bytes=width)
    ]
    return tiff([(n, k, [1] if n == 278 else v) for n, k, v in tags], bytes(width))


def strips(bits: tuple[int, ...], named: int, *, n_bytes: int) -> bytes:
    """16 rows of 16 pixels, of which some are named."""
    tags = {number: (kind, values) for number, kind, values in tiff_tags(16, 16, n_bytes=n_bytes, bits=bits)}
    tags |= {273: (LONG, [8] * named), 278: (LONG, [1]), 279: (LONG, [n_bytes] * named)}
    return tiff([(number, kind, values) for number, (kind, values) in tags.items()], bytes(range(64)) * 4)


def tiff_of_half_its_strips() -> bytes:
    return strips((8,), 8, n_bytes=16)


def float_tiff_of_half_its_strips() -> bytes:
    return strips((64,), 8, n_bytes=128)


def float_tiff_strip_bomb() -> bytes:
    packed = zeros_packed(16 << 20)
    return tiff(tiff_tags(16, 16, n_bytes=len(packed), packing=8, bits=(64,)), packed)


def float_tiff_of_lzw() -> bytes:
    return tiff(tiff_tags(16, 16, n_bytes=40, packing=5, bits=(64,)), bytes(40))


def black_png_that_ends_early() -> bytes:
    return png(4, 4, bytes(2 * 13))


def tiff_of_many_channels() -> bytes:
    return tiff(tiff_tags(4_000, 4_000, n_bytes=4, bits=(8,) * 500), bytes(4))


def tiff_whose_pages_go_in_a_circle() -> bytes:
    whole = tiff(tiff_tags(16, 16, n_bytes=256, bits=(64,)), bytes(256))
    directory = struct.unpack("<I", whole[4:8])[0]
    return tiff(tiff_tags(16, 16, n_bytes=256, bits=(64,)), bytes(256), next_page=directory)


def png_chunk_bomb(kind: bytes, beginning: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        bomb = chunk(kind, beginning + zeros_packed(16 << 20))
        return png(2, 2, bytes(14), bomb)

    return make


def png_of_no_width() -> bytes:
    return png(0, 4, bytes(16))


def png_without_pixels() -> bytes:
    return png_header(4, 4) + chunk(b"IEND", b"")


def png_with_a_flipped_bit() -> bytes:
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 1
    return bytes(data)


def float_tiff(value: float) -> Callable[[], bytes]:
    return lambda: encoded(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")


BAD_PICTURES = (
    {
        "no bytes": BadPicture(zeros(0), "is empty"),
        "one byte": BadPicture(zeros(1), UNKNOWN),
        "a megabyte of zeros": BadPicture(zeros(1 << 20), UNKNOWN),
        "text": BadPicture(text, UNKNOWN),
        "svg": BadPicture(svg, UNKNOWN),
        "animated gif": BadPicture(animated_gif, UNKNOWN),
        "jpeg 2000": BadPicture(jpeg_2000, UNKNOWN),
        "heic": BadPicture(heic, UNKNOWN),
        "pdf": BadPicture(pdf, UNKNOWN),
        "png start before a jpeg": BadPicture(png_start_before_a_jpeg, UNKNOWN),
        "png with another first byte": BadPicture(png_with_another_first_byte, UNKNOWN),
        "50,000 x 50,000 png": BadPicture(huge_png_header, TOO_LARGE),
        "50,000 x 50,000 jpeg": BadPicture(huge_jpeg_header, TOO_LARGE),
        "50,000 x 50,000 bmp": BadPicture(huge_bmp_header, TOO_LARGE),
        "50,000 x 50,000 tiff": BadPicture(huge_tiff_header, TOO_LARGE),
        "50,000 x 50,000 webp": BadPicture(huge_webp_header, DAMAGED),
        "50,000 x 50,000 tiff of tifffile's": BadPicture(tiff_of_two_sizes, TOO_LARGE),
        "webp canvas of 4 billion pixels": BadPicture(webp_canvas_of_four_billion_pixels, DAMAGED),
        "60,000,000 x 1": BadPicture(long_line, TOO_LARGE),
        "169 megapixels in 20 KB": BadPicture(bilevel_bomb, BOMB),
        "20 megapixels of webp in 30 bytes": BadPicture(webp_bomb, BOMB),
        "tiff strips of which half are named": BadPicture(
            tiff_of_half_its_strips, "it holds 128 of 256 pixels"
        ),
        "float tiff whose strip unpacks to more": BadPicture(
            float_tiff_strip_bomb, "unpacks to more than 2,048 bytes"
        ),
        "float tiff of half its strips": BadPicture(
            float_tiff_of_half_its_strips, "it holds 8 of 16 strips or tiles"
        ),
        "float tiff of LZW": BadPicture(float_tiff_of_lzw, "whose compression is not read here"),
        "black png that ends early": BadPicture(
            black_png_that_ends_early, "it holds 26 of 52 bytes of pixels"
        ),
        "tiff strips all alike": BadPicture(tiff_strips_all_alike, BOMB),
        "tiff of 500 channels": BadPicture(tiff_of_many_channels, TOO_LARGE),
        "tiff whose pages go in a circle": BadPicture(tiff_whose_pages_go_in_a_circle, DAMAGED),
        "png iCCP bomb": BadPicture(png_chunk_bomb(b"iCCP", b"p\0\0"), DAMAGED),
        "png zTXt bomb": BadPicture(png_chunk_bomb(b"zTXt", b"t\0\0"), DAMAGED),
        "png iTXt bomb": BadPicture(png_chunk_bomb(b"iTXt", b"t\0\x01\0\0\0"), DAMAGED),
        "png of no width": BadPicture(png_of_no_width, UNKNOWN),
        "png without pixels": BadPicture(png_without_pixels, DAMAGED),
        "png with a flipped bit": BadPicture(png_with_a_flipped_bit, DAMAGED),
        "jpeg of 5 channels": BadPicture(jpeg_of_five_channels, UNKNOWN),
        "lossless jpeg": BadPicture(lossless_jpeg, DAMAGED),
        "jpeg of 12 bits": BadPicture(jpeg_of_12_bits, UNKNOWN),
        "jpeg of 1,000 scans": BadPicture(jpeg_of_a_thousand_scans, "scans"),
        "jpeg of grey scans alone": BadPicture(jpeg_of_grey_scans_alone, DAMAGED),
        "float tiff beyond white": BadPicture(float_tiff(0.5), "has float32 values up to 0.5"),
        "tiff of NaN": BadPicture(float_tiff(np.nan), "has values that are not finite"),
        "tiff of infinity": BadPicture(float_tiff(np.inf), "has values that are not finite"),
        "tiff of negative numbers": BadPicture(float_tiff(-1.0), "has negative values"),
    }
    | {
        f"{'progressive ' if progressive else ''}jpeg closed after {share:.0%}": BadPicture(
            closed_jpeg(share, progressive=progressive), DAMAGED
        )
        for progressive in (False, True)
        for share in (0.5, 0.6, 0.7, 0.8, 0.9, 0.98)[: 5 if progressive else 6]
    }
    | {
        f"{kind} cut to {share:.0%}": BadPicture(
            lambda kind=kind, share=share: cut(kind, share), f"{DAMAGED}|{UNKNOWN}"
        )
        for kind in KINDS
        for share in (0.1, 0.5, 0.95)
    }
)
