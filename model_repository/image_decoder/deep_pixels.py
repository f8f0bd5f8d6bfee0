"""Pixels of more than 8 bits a channel, and the TIFFs that Pillow cannot read.

White is 2**bit_depth - 1. A bit depth of 1 stands for floating-point pixels from 0 to 1.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if __package__:
    from model_repository.image_decoder.picture_limits import ImageError as ImageError
    from model_repository.image_decoder.picture_limits import require_density, require_size
else:  # in the server, where both files lie side by side
    from picture_limits import ImageError, require_density, require_size  # type: ignore[import-not-found, no-redef]

BIT_DEPTHS = (1, 8, 10, 12, 14, 16, 20, 24, 32)  # that are found; any from 8 to 32 may be asked for
ZIPPED = (8, 32946)  # compressions of TIFF
COMPRESSIONS = (1, 32773, *ZIPPED)  # none, PackBits, ZIP
ROWS = 256  # that are converted at a time
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation: what turns the stored pixels upright


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
        pixels = np.empty(self.values.shape, np.uint8)
        opaque = 1.0 if self.alpha is None else self._opaque(white)
        # Floating-point numbers of a whole image would take several times its memory.
        for start in range(0, len(pixels), ROWS):
            rows = slice(start, start + ROWS)
            pixels[rows] = self._levels(rows, white, opaque)
        image = Image.fromarray(pixels).convert("RGB")
        return image.transpose(TURNS[self.orientation]) if self.orientation in TURNS else image

    def _levels(self, rows: slice, white: int, opaque: float) -> NDArray[Any]:
        """Some rows as levels from 0 to 255."""
        # 32-bit floats are exact enough for the 8-bit levels of 16 bits.
        kind = np.float32 if self.values.dtype.itemsize <= 2 else np.float64
        levels: NDArray[Any] = self.values[rows].astype(kind)
        levels *= 255 / white
        if self.inverted:
            levels = 255 - levels
        if self.alpha is not None:
            share = self.alpha[rows] / opaque
            levels = levels * (share[..., 0] if levels.ndim == 2 else share)
        return np.asarray(np.rint(levels))

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
        ImageError: damaged, too large, neither grey nor RGB, or of a compression that needs more than tifffile; or
            there is no tifffile.
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
        photometric, orientation = int(page.photometric), page.tags.valueof("Orientation", 1)
        _require_readable(page, photometric)
        require_density(page.imagewidth, page.imagelength, len(encoded))
        _require_whole(page, encoded)
        values = page.asarray()
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = values[..., None] if values.ndim == 2 else values
    n_colours = 3 if photometric == 2 else 1
    colours, alpha = values[..., :n_colours], values[..., n_colours:]
    return DeepPixels(
        colours if n_colours == 3 else colours[..., 0],
        alpha if alpha.size else None,
        inverted=photometric == 0,
        orientation=orientation,
    )


def _require_readable(page: Any, photometric: int) -> None:
    """Refuse by its tags what would be no image, or a too large one, once it is unpacked."""
    n_channels, n_colours = page.samplesperpixel, 3 if photometric == 2 else 1
    n_bytes = 0 if page.dtype is None else page.dtype.itemsize
    require_size(page.imagewidth, page.imagelength, bytes_per_pixel=n_bytes * n_channels)
    if photometric > 2 or page.imagedepth != 1 or n_channels not in (n_colours, n_colours + 1) or not n_bytes:
        raise ImageError(
            f"is a TIFF with {n_channels} channels of {page.dtype}, photometric {photometric}; expected grey or RGB, "
            "with alpha or without; save it as that"
        )


def _require_whole(page: Any, encoded: bytes) -> None:
    """Refuse by its strips or tiles what tifffile would fill up, or unpack to far more than the image.

    Only compressions that need nothing but tifffile are read: where training has more and the server has not, the one
    would take images that the other refuses.
    """
    compression, predictor = int(page.compression), int(page.predictor)
    if compression not in COMPRESSIONS or predictor not in (1, 2):
        kind = getattr(page.compression, "name", compression)
        raise ImageError(
            f"is a TIFF of more than 8 bits whose compression is not read here ({kind}, predictor {predictor}); save "
            "it without, or with ZIP"
        )
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    expected = math.prod(page.chunked)
    whole = [place for place in places if place[0] > 0 and 0 < place[1] <= len(encoded) - place[0]]
    if len(whole) != expected:
        raise ImageError(f"is truncated or damaged (it holds {len(whole):,} of {expected:,} strips or tiles)")
    if compression in ZIPPED:
        most = math.prod(page.chunks) * page.dtype.itemsize
        for offset, length in whole:
            unpacker = zlib.decompressobj()
            if len(unpacker.decompress(encoded[offset : offset + length], most + 1)) > most:
                raise ImageError(
                    f"is truncated or damaged (a strip or tile unpacks to more than {most:,} bytes)"
                )


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
