"""Picture files in the data folder; what people call them never becomes a path."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path

from PIL import UnidentifiedImageError

from client.console import printable
from client.core.errors import ImageFileError
from client.files import replace_file
from model_repository.image_decoder.image_decoding import FORMATS, TIFF_STARTS, ImageError, open_image

LARGEST_UPLOAD = 256 << 20  # bytes; 85 megapixels without compression
LONGEST_NAME = 200
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


def shown_name(name: str) -> str:
    """A file's name for people: its last part, on one line, escaped where it is no text."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return printable(last)[-LONGEST_NAME:] or "unnamed"


def keep_upload(folder: Path, content: bytes, name: str) -> str:
    """Write a picture that was dropped; returns its file, relative to the pictures' folder.

    Raises:
        ImageFileError: it is no image of a known format, or too large.
        StorageError: it cannot be written.
    """
    place = _place(_suffix(content, name))
    replace_file(folder / place, lambda temporary: temporary.write_bytes(content))
    return place


def keep_copy(folder: Path, source: Path) -> str | None:
    """Copy a picture that a watched folder has; None where it is gone or cannot be read.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with source.open("rb"):
            pass
    except OSError:
        return None
    place = _place(source.suffix.lower())
    replace_file(folder / place, lambda temporary: shutil.copyfile(source, temporary))
    return place


def _suffix(content: bytes, name: str) -> str:
    try:
        with open_image(io.BytesIO(content)) as image:
            return SUFFIXES[image.format or ""]
    except UnidentifiedImageError:
        if content[:4] in TIFF_STARTS:
            return ".tif"
        raise ImageFileError(
            f"{shown_name(name)} is not an image of a known format ({', '.join(FORMATS)}); it was not taken."
        ) from None
    except ImageError as error:
        raise ImageFileError(f"{shown_name(name)} {error}; it was not taken.") from None


def _place(suffix: str) -> str:
    stem = uuid.uuid4().hex
    return f"{stem[:2]}/{stem}{suffix}"
