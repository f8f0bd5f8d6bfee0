"""What a browser shows of a picture: a thumbnail, a preview of a screen's size, and every pixel of it."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from client.pictures.images import load_image
from model_repository.image_decoder.image_decoding import ImageError, open_image

THUMBNAIL, PREVIEW = 192, 1024  # pixels of the longer side
QUALITY = 85
SHOWN_AS_THEY_ARE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
KEPT_PREVIEWS = 200


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of an RGB image."""
    return _jpeg(image, THUMBNAIL)


def preview(image: Image.Image) -> bytes:
    """A JPEG of a screen's size of an RGB image."""
    return _jpeg(image, PREVIEW)


def content_type(path: Path) -> str | None:
    """How a browser takes the file as it is; None where it has to be converted, so that it shows what was judged."""
    try:
        with open_image(path) as image:
            kind = SHOWN_AS_THEY_ARE.get(image.format or "")
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1 or image.format == "JPEG"
            return (
                kind
                if upright and image.mode in ("L", "RGB") and not image.info.get("transparency")
                else None
            )
    except (ImageError, UnidentifiedImageError):
        return None


def every_pixel(path: Path, *, bit_depth: int) -> bytes:
    """A picture as an 8-bit PNG, as it is judged.

    Raises:
        ImageFileError: see `load_image`.
    """
    buffer = io.BytesIO()
    load_image(path, bit_depth=bit_depth).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Previews:
    """The last previews; threads may share them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._guard = threading.Lock()

    def keep(self, inspection: int, jpeg: bytes) -> None:
        """Keep one, and forget the oldest where there are many."""
        with self._guard:
            self._kept[inspection] = jpeg
            while len(self._kept) > KEPT_PREVIEWS:
                self._kept.popitem(last=False)

    def get(self, inspection: int) -> bytes | None:
        """One that is kept."""
        with self._guard:
            return self._kept.get(inspection)


def _jpeg(image: Image.Image, side: int) -> bytes:
    small = image.copy() if max(image.size) <= side else image
    if small is image:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
