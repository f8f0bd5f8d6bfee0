"""What is refused of an image file before its pixels are unpacked: too large, or packed too densely.

A few kilobytes can name any number of pixels, and the server would take the memory for them. The limits are those of
factory cameras: they have up to 150 megapixels today, sides below 65,536 pixels, and files of megabytes. It imports
nothing but Python's own modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

MAX_MEGAPIXELS = "ASTMFR_MAX_MEGAPIXELS"  # an environment variable, for training, client and server alike
DEFAULT_MAX_MEGAPIXELS = 200.0
BYTES_PER_PIXEL = 8  # as read, of the largest images: 16 bits of RGB and alpha
OTHER_MB = 64  # of a file, that are no pixels
MAX_SIDE = 65_535  # pixels; the filter that shrinks a longer side to a few pixels takes gigabytes
SMALLEST_OWN_SIDE = 32  # pixels of an image that keeps its own size: the networks halve it five times
# Up to here a file may be as small as it likes: 48 MB of pixels.
FREE_MEGAPIXELS = 16.0
# A frame without a grain of noise, the lens covered, has 1,032 in a PNG of 8 bits and 1,312 in a TIFF of LZW.
MAX_PIXELS_PER_BYTE = 1_400


class ImageError(ValueError):
    """Bytes that are no complete image of a known format, or pixels that the bit depth does not allow."""


def require_size(width: int, height: int, *, bytes_per_pixel: int = 0) -> None:
    """Refuse an image before its pixels are unpacked.

    Args:
        width, height: in pixels.
        bytes_per_pixel: as read; up to 8 are not told apart.

    Raises:
        ImageError: more pixels than `max_megapixels`, more bytes than 8 for each of those, or a side above 65,535.
    """
    limit, megapixels = max_megapixels(), width * height / 1e6
    remedy = f"make it smaller, or set {MAX_MEGAPIXELS} where it is decoded"
    if megapixels > limit:
        raise ImageError(
            f"is too large: {width} x {height} are {megapixels:,.1f} megapixels; expected at most {limit:,g}; {remedy}"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"is too large: {width} x {height}; expected sides of at most {MAX_SIDE:,} pixels; cut it into parts"
        )
    if megapixels * bytes_per_pixel > limit * BYTES_PER_PIXEL:
        raise ImageError(
            f"is too large: {width} x {height} pixels of {bytes_per_pixel} bytes are "
            f"{megapixels * bytes_per_pixel:,.0f} MB; expected at most {limit * BYTES_PER_PIXEL:,.0f}; {remedy}"
        )


def require_own_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse an image that is to be judged at its own size, filled up to multiples of 32.

    Raises:
        ImageError: it has more than `max_pixels` then, or a side below 32, where all that is seen is what it is
            filled up with.
    """
    if min(width, height) < SMALLEST_OWN_SIDE:
        raise ImageError(
            f"is too small: {width} x {height}, and images are judged at their own size; expected sides of at least "
            f"{SMALLEST_OWN_SIDE} pixels"
        )
    filled_width, filled_height = (-(-side // 32) * 32 for side in (width, height))
    if filled_width * filled_height > max_pixels:
        raise ImageError(
            f"is too large: {width} x {height} are {width * height / 1e6:,.1f} megapixels, and images are judged at "
            f"their own size up to {max_pixels / 1e6:,.4g}; cut it into parts, or publish with "
            "ASTMFR_NATIVE_MEGAPIXELS set to more"
        )


def require_file_size(n_bytes: int) -> None:
    """Refuse a file that is larger than any image that is read, before it is in memory.

    Raises:
        ImageError: more than 8 bytes for each of the pixels that an image may have, and 64 MB for what else lies in it.
    """
    limit = max_megapixels() * BYTES_PER_PIXEL + OTHER_MB
    if n_bytes > limit * 1e6:
        raise ImageError(
            f"is too large: {n_bytes / 1e6:,.0f} MB; expected an image file of at most {limit:,.0f}"
        )


def require_density(width: int, height: int, n_bytes: int) -> None:
    """Refuse a small file that says it is a large image.

    Raises:
        ImageError: more than 16 megapixels, and more than 1,400 for each of the file's bytes.
    """
    if width * height > FREE_MEGAPIXELS * 1e6 and width * height > MAX_PIXELS_PER_BYTE * n_bytes:
        raise ImageError(
            f"is packed too densely: {width} x {height} pixels in {n_bytes:,} bytes; above {FREE_MEGAPIXELS:g} "
            f"megapixels at most {MAX_PIXELS_PER_BYTE:,} pixels a byte are expected, which a black frame of a camera "
            "does not reach; save it with 8 bits a channel as PNG, JPEG or TIFF"
        )


@contextmanager
def naming_memory(width: int, height: int) -> Iterator[None]:
    """Say how large a picture is that there is no memory for.

    Raises:
        ImageError: in place of a MemoryError within.
    """
    try:
        yield
    except MemoryError:
        megapixels = width * height / 1e6
        raise ImageError(
            f"needs more memory to be decoded than is free: {width} x {height} are {megapixels:,.1f} megapixels, which "
            f"take up to {megapixels * BYTES_PER_PIXEL:,.0f} MB; make it smaller, or free memory where it is decoded"
        ) from None


def max_megapixels() -> float:
    """Millions of pixels that an image may have: `ASTMFR_MAX_MEGAPIXELS` of the environment, or 200.

    Raises:
        ImageError: it is no number above 0.
    """
    text = os.environ.get(MAX_MEGAPIXELS) or str(DEFAULT_MAX_MEGAPIXELS)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ImageError(f"is not opened, for {MAX_MEGAPIXELS} is {text!r}; expected a number above 0")
    return limit
