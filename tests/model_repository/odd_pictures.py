"""Files that are odd and whole: they are judged, and training, client and server read the same pixels from them.

`ODD_PICTURES` has a function a case, which gives the file's bytes, and the bit depth that it is read with.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.model_repository.picture_bytes import (
    LONG,
    PALETTE,
    RGB,
    chunk,
    encoded,
    jpeg_segment,
    photo,
    png,
    png_header,
    tiff,
    tiff_tags,
    zeros_packed,
)

ORIENTATION = 0x0112


@dataclass(frozen=True)
class OddPicture:
    """A file to read.

    Attributes:
        make: gives its bytes.
        bit_depth: of the category that it belongs to.
    """

    make: Callable[[], bytes]
    bit_depth: int = 8


def as_kind(kind: str, mode: str = "RGB", size: tuple[int, int] = (48, 32), **options: Any) -> OddPicture:
    """The photo in another mode or size, as Pillow writes it."""
    return OddPicture(lambda: encoded(photo(*size).convert(mode), kind, **options))


def turned(kind: str, orientation: int) -> OddPicture:
    def make() -> bytes:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        return encoded(photo(), kind, exif=exif)

    return OddPicture(make)


def with_alpha(mode: str, kind: str) -> OddPicture:
    def make() -> bytes:
        image = photo().convert("L" if mode == "LA" else "RGB")
        image.putalpha(photo(seed=1).convert("L"))
        return encoded(image, kind)

    return OddPicture(make)


def palette_with_transparency() -> bytes:
    return encoded(photo().quantize(7), "PNG", transparency=3)


def deep(values: NDArray[Any]) -> NDArray[Any]:
    """Grey values of the photo, spread over the range of another number."""
    return np.asarray(photo().convert("L")).astype(values.dtype) * values


def grey_tiff(factor: NDArray[Any], **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep(factor), **options)
        return buffer.getvalue()

    return make


def planes_of_floats() -> bytes:
    buffer = io.BytesIO()
    pixels = np.moveaxis(np.asarray(photo()), -1, 0).astype(np.float32) / 255
    tifffile.imwrite(
        buffer, pixels, photometric="rgb", planarconfig="separate", compression="zlib", predictor=False
    )
    return buffer.getvalue()


def deep_colour_png() -> bytes:
    rows = np.asarray(photo()).astype(">u2").reshape(32, -1) * 257
    return png(48, 32, b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows), bits=16)


def two_bit_palette_png() -> bytes:
    colours = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]))
    return png(4, 2, b"\0\x1b\0\xe4", colours, bits=2, colours=PALETTE)


def interlaced_png() -> bytes:
    """2 x 2 pixels in the three passes of seven that such a small one has."""
    header = png_header(2, 2)[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, RGB, 0, 0, 1))
    body = png(1, 1, b"\0\1\2\3" + b"\0\4\5\6" + b"\0\7\7\7\0\0\0")
    return header + body[body.index(b"IDAT") - 4 :]


def png_turned_behind_its_pixels() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    whole = encoded(photo(), "PNG")
    return whole[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + whole[-12:]


def png_whose_chunk_is_longer_than_it() -> bytes:
    whole = bytearray(encoded(photo(), "PNG"))
    at = whole.index(b"IDAT") - 4
    whole[at : at + 4] = struct.pack(">I", 2**31 - 1)
    return bytes(whole)


def followed_by_something(kind: str) -> OddPicture:
    return OddPicture(lambda: encoded(photo(), kind) + b"a trailer of the camera" * 50)


def with_profile(kind: str) -> OddPicture:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return as_kind(kind, icc_profile=profile)


def with_broken_profile() -> bytes:
    return encoded(photo(), "PNG", icc_profile=b"no profile at all")


def jpeg_with_much_exif() -> bytes:
    whole = encoded(photo(), "JPEG")
    notes = [jpeg_segment(0xE1, b"Exif\0\0" + bytes([number]) * 65_000) for number in range(60)]
    return whole[:2] + b"".join(notes) + whole[2:]


def tiff_strip_that_unpacks_to_more() -> bytes:
    packed = zeros_packed(64 << 20)
    return tiff(tiff_tags(16, 16, n_bytes=len(packed), packing=8), packed)


def tiff_tag_of_two_billion_values() -> bytes:
    whole = bytearray(tiff([*tiff_tags(16, 16, n_bytes=256), (700, LONG, [1])], bytes(range(256))))
    whole[-12:-8] = struct.pack("<I", 2**31 - 1)  # the last tag's count
    return bytes(whole)


def black_frame() -> bytes:
    """The lens covered: 20 megapixels in 20 KB, and no bomb."""
    return encoded(Image.new("L", (5_000, 4_000)), "PNG")


def several(kind: str, **options: Any) -> OddPicture:
    return as_kind(kind, save_all=True, append_images=[photo(seed=1), photo(seed=2)], **options)


ODD_PICTURES = {
    "1 x 1": as_kind("PNG", size=(1, 1)),
    "1 x 10,000": as_kind("PNG", size=(1, 10_000)),
    "10,000 x 1": as_kind("PNG", size=(10_000, 1)),
    "65,000 x 2": as_kind("PNG", size=(65_000, 2)),
    "black frame of 20 megapixels": OddPicture(black_frame),
    "16-bit grey png": OddPicture(lambda: encoded(Image.fromarray(deep(np.uint16(257))), "PNG"), 16),
    "16-bit grey tiff": OddPicture(grey_tiff(np.uint16(257)), 16),
    "16-bit big-endian tiff": OddPicture(grey_tiff(np.uint16(257), byteorder=">"), 16),
    "16-bit inverted tiff": OddPicture(grey_tiff(np.uint16(257), photometric="miniswhite"), 16),
    "12 bits in 16, png": OddPicture(lambda: encoded(Image.fromarray(deep(np.uint16(16))), "PNG"), 12),
    "12 bits in 16, tiff": OddPicture(grey_tiff(np.uint16(16)), 12),
    "16-bit colour png": OddPicture(deep_colour_png, 16),
    "32-bit tiff": OddPicture(grey_tiff(np.uint32(16)), 12),
    "float tiff": OddPicture(grey_tiff(np.float32(1 / 255)), 1),
    "double tiff": OddPicture(grey_tiff(np.float64(1 / 255)), 1),
    "half float tiff": OddPicture(grey_tiff(np.float16(1 / 256)), 1),
    "float tiff of planes": OddPicture(planes_of_floats, 1),
    "cmyk jpeg": as_kind("JPEG", "CMYK"),
    "cmyk tiff": as_kind("TIFF", "CMYK"),
    "grey jpeg": as_kind("JPEG", "L"),
    "progressive jpeg": as_kind("JPEG", progressive=True),
    "jpeg of full colour": as_kind("JPEG", subsampling=0, quality=95),
    "ycbcr tiff": as_kind("TIFF", "YCbCr"),
    "palette png": as_kind("PNG", "P"),
    "palette bmp": as_kind("BMP", "P"),
    "palette png with transparency": OddPicture(palette_with_transparency),
    "palette png of 2 bits": OddPicture(two_bit_palette_png),
    "bilevel png": as_kind("PNG", "1"),
    "bilevel fax tiff": as_kind("TIFF", "1", compression="group4"),
    "interlaced png": OddPicture(interlaced_png),
    "rgba png": with_alpha("RGBA", "PNG"),
    "grey png with alpha": with_alpha("LA", "PNG"),
    "rgba tiff": with_alpha("RGBA", "TIFF"),
    "rgba webp": with_alpha("RGBA", "WEBP"),
    "png with a profile": with_profile("PNG"),
    "jpeg with a profile": with_profile("JPEG"),
    "tiff with a profile": with_profile("TIFF"),
    "png with a broken profile": OddPicture(with_broken_profile),
    "jpeg with 4 MB of exif": OddPicture(jpeg_with_much_exif),
    "png turned behind its pixels": OddPicture(png_turned_behind_its_pixels),
    "png whose chunk is longer than it": OddPicture(png_whose_chunk_is_longer_than_it),
    "tiff strip that unpacks to more": OddPicture(tiff_strip_that_unpacks_to_more),
    "tiff tag of 2 billion values": OddPicture(tiff_tag_of_two_billion_values),
    "tiff of several pages": several("TIFF"),
    "animated png": several("PNG"),
    "animated webp": several("WEBP", lossless=True),
    "several pictures in a jpeg": several("MPO"),
} | {
    f"{kind} with orientation {orientation}": turned(kind, orientation)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP")
    for orientation in (range(10) if kind == "JPEG" else (1, 6, 7, 8))
} | {
    f"{kind} followed by something": followed_by_something(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")
} | {
    f"tiff of {compression}": as_kind("TIFF", compression=compression)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
}  # fmt: skip
