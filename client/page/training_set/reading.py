"""Read a marked picture and the mask that was drawn over it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from model_repository.image_decoder.image_decoding import (
    SUFFIXES,
    DeepPixels,
    ImageError,
    decode_pixels,
    naming,
    open_image,
)
from model_repository.image_decoder.picture_limits import require_file_size

SUFFIX_OF = {"JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
NAME_LETTERS = 16  # of the hash


@dataclass(frozen=True)
class ReadPicture:
    """The file of a marked picture.

    Attributes:
        digest: SHA-256 of its bytes, in hexadecimal.
        n_bytes: how many they are.
        suffix: how its name ends in the set.
        size: width and height of the upright picture, pixels.
    """

    digest: str
    n_bytes: int
    suffix: str
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """That in the set: by its content alone."""
        return f"mark-{self.digest[:NAME_LETTERS]}{self.suffix}"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_picture(path: Path) -> ReadPicture:
    """Read a picture's file and see to it that it can be judged and trained on.

    Raises:
        ImageError: it is gone, cannot be read, or is no whole image; the sentence names it and has no full stop.
    """
    with naming(path):
        require_file_size(path.stat().st_size)
        content = path.read_bytes()
        pixels = decode_pixels(content)
    if isinstance(pixels, DeepPixels):
        height, width = pixels.values.shape[:2]
        size = (height, width) if pixels.orientation in SIDEWAYS else (width, height)
    else:
        size = pixels.size
    return ReadPicture(hashlib.sha256(content).hexdigest(), len(content), _suffix(path, content), size)


def read_mask(drawn: bytes, size: tuple[int, int]) -> bytes | None:
    """A drawn mask as a grey PNG of 0 and 255; None where nothing was drawn in it.

    Args:
        drawn: an image file of 8 bits in which whatever is neither 0 nor transparent is defective.
        size: width and height of the upright picture.

    Raises:
        ImageError: it is no image, or of another size; a phrase that follows its name.
    """
    pixels = decode_pixels(drawn, any_density=True)
    if isinstance(pixels, DeepPixels):
        raise ImageError("has 16 bits, expected 8")
    if pixels.size != size:
        raise ImageError(
            f"is {pixels.size[0]} x {pixels.size[1]} pixels, expected the picture's {size[0]} x {size[1]}"
        )
    rgba = np.asarray(pixels.convert("RGBA"))  # [H, W, 4]
    marked = (rgba[..., 3] > 0) & (rgba[..., :3].max(axis=2) > 0)
    if not marked.any():
        return None
    encoded = io.BytesIO()
    Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def _suffix(path: Path, content: bytes) -> str:
    """How the name of an image file ends; by its content where its own name ends otherwise."""
    if path.suffix.lower() in SUFFIXES:
        return path.suffix.lower()
    try:
        with open_image(io.BytesIO(content)) as image:
            return SUFFIX_OF.get(image.format or "", ".png")
    except UnidentifiedImageError:
        return ".tif"  # Pillow knows all others
