"""Width and height of image files, as they are stored and as they are seen."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, UnidentifiedImageError

from model_repository.image_decoder.image_decoding import (
    DeepPixels,
    decode_pixels,
    naming,
    naming_damage,
    open_image,
)

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def upright_size(path: Path, *, decode: bool) -> tuple[int, int]:
    """Width and height in pixels, as `read_image` gives them; see `stored_size`."""
    (width, height), orientation = stored_size(path, decode=decode)
    return (height, width) if orientation in SIDEWAYS else (width, height)


def stored_size(path: Path, *, decode: bool) -> tuple[tuple[int, int], int]:
    """Width and height in pixels as a file holds them, and the EXIF orientation by which they are turned upright.

    A PNG may keep its orientation behind its pixels, which then have to be decoded to find it. Without `decode` such a
    PNG is measured as it is stored, and only headers are read.

    Raises:
        ImageError: the file is broken, too large, or cannot be read.
    """
    try:
        with naming(path), naming_damage(), open_image(path) as image:
            width, height = image.size
            readable = decode or image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if readable else 1
            # Of a TIFF Pillow gives the upright size.
            swapped = image.format == "TIFF" and orientation in SIDEWAYS
            return ((height, width) if swapped else (width, height)), orientation
    except UnidentifiedImageError:
        with naming(path):
            pixels = decode_pixels(path.read_bytes())
    if isinstance(pixels, DeepPixels):
        height, width = pixels.values.shape[:2]
        return (width, height), pixels.orientation
    return pixels.size, 1
