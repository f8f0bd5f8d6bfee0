"""Pixels of more than 8 bits a channel, the TIFFs that Pillow cannot read, and how large an image may be.

White is 2**bit_depth - 1. A bit depth of 1 stands for floating-point pixels from 0 to 1.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

BIT_DEPTHS = (1, 8, 10, 12, 14, 16, 20, 24, 32)  # that are found; any from 8 to 32 may be asked for
MAX_MEGAPIXELS = "ASTMFR_MAX_MEGAPIXELS"  # an environment variable, for training, client and server alike
DEFAULT_MAX_MEGAPIXELS = 200.0
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation: what turns the stored pixels upright


class ImageError(ValueError):
    """Bytes that are no complete image of a known format, or pixels that the bit depth does not allow."""


@dataclass(frozen=True)
class DeepPixels:
    """Pixels of more than 8 bits a channel, as the file holds them.

    Attributes:
        values: [H, W] or [H, W, 3], integers or floating-point numbers.
        alpha: [H, W, 1] of the same kind; None where all is opaque.
        inverted: 0 is white.
        orientation: EXIF's, of pixels that are not upright yet.
        high_bytes_only: the lower 8 of 16 bits are lost, so that no other bit depth than 16 can be read.
    """

    values: NDArray[Any]
    alpha: NDArray[Any] | None = None
    inverted: bool = False
    orientation: int = 1
    high_bytes_only: bool = False

    @property
    def brightest(self) -> float:
        """The largest value.

        Raises:
            ImageError: values that no bit depth allows: negative, not finite, or above 32 bits.
        """
        darkest, brightest = float(self.values.min()), float(self.values.max())
        if not np.isfinite(darkest + brightest):
            raise ImageError("has values that are not finite (NaN or infinite); expected numbers from 0 on")
        if darkest < 0:
            raise ImageError(f"has negative values, down to {darkest:,g}; expected numbers from 0 on")
        if brightest > white_of(BIT_DEPTHS[-1]):
            raise ImageError(
                f"has values up to {brightest:,g}; expected at most those of {BIT_DEPTHS[-1]} bits"
            )
        return brightest

    def bit_depth(self) -> int:
        """The smallest of `BIT_DEPTHS` that holds the brightest value; 1 for floating-point values up to 1.

        Raises:
            ImageError: see `brightest`.
        """
        if self.high_bytes_only:
            return 16
        smallest = 1 if np.issubdtype(self.values.dtype, np.floating) else 8
        brightest = self.brightest
        return next(depth for depth in BIT_DEPTHS if depth >= smallest and brightest <= white_of(depth))

    def to_8_bits(self, bit_depth: int) -> Image.Image:
        """Upright RGB: black to white of the bit depth as 0 to 255, alpha composed over black.

        Raises:
            ImageError: a value beyond white, or floating-point values of another range than the bit depth's.
        """
        white, brightest, found = white_of(bit_depth), self.brightest, self.bit_depth()
        unlike = (found == 1 and bit_depth > 1 and brightest > 0) or (
            self.high_bytes_only and bit_depth != 16
        )
        if brightest > white or unlike:
            raise ImageError(
                f"has {self.values.dtype} values up to {brightest:,g}; expected at most {white:,}, the white of "
                f"{bit_depth} bits a channel; save it like the images that were trained on, or train with --bit-depth "
                f"{found}"
            )
        # 32-bit floats are exact enough for the 8-bit levels of 16 bits.
        kind = np.float32 if self.values.dtype.itemsize <= 2 else np.float64
        levels: NDArray[Any] = self.values.astype(kind)
        levels *= 255 / white
        if self.inverted:
            levels = 255 - levels
        if self.alpha is not None:
            levels = levels.reshape(*levels.shape[:2], -1) * (self.alpha / self._opaque(white))
        pixels = np.rint(levels).astype(np.uint8)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).convert("RGB")
        return image.transpose(TURNS[self.orientation]) if self.orientation in TURNS else image

    def _opaque(self, white: int) -> float:
        """The alpha of an opaque pixel: 1 in floating-point numbers, white, or all bits of the file."""
        assert self.alpha is not None
        highest, kind = float(self.alpha.max()), self.alpha.dtype
        if np.issubdtype(kind, np.floating):
            return 1.0 if highest <= 1 else max(white, highest)
        return white if highest <= white else float(np.iinfo(kind).max)


def white_of(bit_depth: int) -> int:
    """The value that is white."""
    return int(2**bit_depth - 1)


def read_with_tifffile(encoded: bytes) -> Image.Image | DeepPixels:
    """The first page of a TIFF that Pillow cannot read.

    Raises:
        ImageError: damaged, neither grey nor RGB, or of a compression that needs more than tifffile; or there is no
            tifffile.
    """
    try:  # here, for clients start without it, and the server of a container may lack it
        import tifffile
    except ImportError:
        raise ImageError(
            "is a TIFF of a kind that Pillow cannot read; expected 1 or 3 channels of 8 or 16 bits, or 1 of 32; save "
            "it so, or install tifffile where it is decoded"
        ) from None
    with naming_damage(), tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page: Any = file.pages.first
        require_size(page.imagewidth, page.imagelength)
        photometric, orientation = int(page.photometric), page.tags.valueof("Orientation", 1)
        try:
            values = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ImageError(
                f"is a TIFF whose compression is not read here ({error}); save it without"
            ) from None
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = values[..., None] if values.ndim == 2 else values
    n_channels, n_colours = values.shape[-1], 3 if photometric == 2 else 1
    if photometric > 2 or values.ndim != 3 or n_channels not in (n_colours, n_colours + 1):
        raise ImageError(
            f"is a TIFF with {n_channels} channels of {values.dtype}, photometric {photometric}; expected grey or RGB, "
            "with alpha or without; save it as that"
        )
    colours, alpha = values[..., :n_colours], values[..., n_colours:]
    return DeepPixels(
        colours if n_colours == 3 else colours[..., 0],
        alpha if alpha.size else None,
        inverted=photometric == 0,
        orientation=orientation,
    )


def require_size(width: int, height: int) -> None:
    """Refuse an image before its pixels are unpacked.

    Raises:
        ImageError: more pixels than `max_megapixels`.
    """
    if width * height > 1e6 * max_megapixels():
        raise ImageError(
            f"is too large: {width} x {height} are {width * height / 1e6:,.1f} megapixels; expected at most "
            f"{max_megapixels():,g}; make it smaller, or set {MAX_MEGAPIXELS} where it is decoded"
        )


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


@contextmanager
def naming_damage() -> Iterator[None]:
    """Turn the ways in which decoders tell damage into an ImageError."""
    try:
        yield
    except (UnidentifiedImageError, ImageError):
        raise
    except MemoryError:
        raise ImageError("needs more memory to be decoded than there is; make it smaller") from None
    except Exception as error:  # damage leads decoders into errors of every kind, a division by zero for one
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file's fault, not its content's
        raise ImageError(f"is truncated or damaged ({str(error) or type(error).__name__})") from None
