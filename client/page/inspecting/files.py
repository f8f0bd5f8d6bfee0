"""Picture files in the data folder; what people call them never becomes a path."""

from __future__ import annotations

import functools
import io
import uuid
from collections.abc import Sequence
from pathlib import Path

from PIL import UnidentifiedImageError

from client.console import printable
from client.core.errors import ImageFileError
from client.files import replace_file
from client.watching.arrivals import digest_of
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


def keep_copy(folder: Path, sources: Sequence[Path], digest: str) -> str | None:
    """Copy a picture that a watched folder has, from the first of its places where its content lies.

    Args:
        folder: the pictures' folder.
        sources: where it may lie; by now another picture may have come to each of them.
        digest: of its content, see `watching.rows.Judged`.

    Returns:
        Its file, relative to the folder; None where its content lies nowhere, or cannot be read.

    Raises:
        StorageError: it cannot be written.
    """
    for source in sources:
        try:
            content = source.read_bytes()
        except OSError:
            continue
        if digest_of(content).hex() == digest:
            place = _place(source.suffix.lower())
            replace_file(folder / place, functools.partial(_write, content=content))
            return place
    return None


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


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
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # as Pillow has it for a file that was cut
        raise ImageFileError(
            f"{shown_name(name)} is cut off or broken ({printable(str(error))}); it was not taken. Send all of it."
        ) from None


def _place(suffix: str) -> str:
    stem = uuid.uuid4().hex
    return f"{stem[:2]}/{stem}{suffix}"
