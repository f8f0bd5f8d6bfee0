"""Image files in, RGB arrays out: the one way that training, server and client read an image.

It imports Pillow and numpy and nothing else, because it also runs in the server's environment. The
resize is Pillow's bilinear filter, which averages over the source pixels when it shrinks (antialias).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class ImageError(ValueError):
    """Bytes that are no complete image of a known format."""


def decode_image(encoded: bytes) -> Image.Image:
    """Decode an image file to upright 8-bit RGB.

    Grey, palette, CMYK and 16-bit images are converted; alpha is composed over black; an EXIF
    orientation is applied. A file of several pages gives its first.

    Raises:
        ImageError: not an image, not one of `FORMATS`, truncated, or absurdly large.
    """
    if not encoded:
        raise ImageError("is empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise ImageError(f"is not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"is too large: {error}") from None
    # Pillow's decoders tell damage in all of these ways.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise ImageError(f"is truncated or damaged ({error})") from None
    return _to_rgb(image)


def read_image(path: Path) -> Image.Image:
    """Read an image file as `decode_image` does; the error names the file.

    Raises:
        ImageError: see `decode_image`; or the file cannot be read.
    """
    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror})") from None
    except ImageError as error:
        raise ImageError(f"{path} {error}") from None


def resize_image(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize to a square, aspect ratio given up, as in the paper's protocol (Section 4.1).

    Returns:
        [size, size, 3] uint8, RGB in 0..255.
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("holds floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    # Pillow would copy an image that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Map 0..65535 to 0..255; Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.float64) / 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
