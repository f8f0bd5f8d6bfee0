"""Images from files, read with the very code that the server decodes with; and those that a program holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.core.errors import ImageFileError, ImageTypeError
from client.core.inputs import Prepared, prepare, prepare_pixels
from model_repository.image_decoder import image_decoding
from model_repository.image_decoder.picture_limits import ImageError, require_file_size


def prepare_any(image: Any, *, bit_depth: int = 8, name: str = "The image", own: bool = False) -> Prepared:
    """An image as it is sent, of a path too; see `inputs.prepare`.

    Args:
        image: see `inputs.Picture`.
        bit_depth: of the category.
        name: of the image, for errors; a path's is the path.
        own: see `inputs.prepare`.

    Raises:
        ImageTypeError: another kind of value, or an array of another type or shape.
        ImageFileError: a file or pixels that cannot be read.
    """
    if not isinstance(image, str | os.PathLike):
        return prepare(image, bit_depth=bit_depth, name=name, own=own)
    text = os.fspath(image)
    if not isinstance(text, str) or "\0" in text or text.startswith(("b'", 'b"')):
        raise ImageTypeError(
            f"{name} is a text that is no path ({type(image).__name__} of {len(text):,} characters); expected an image "
            "file's path, or its content as bytes."
        )
    return _read(Path(text), bit_depth)


def _read(path: Path, bit_depth: int) -> Prepared:
    try:
        with image_decoding.naming(path), image_decoding.naming_damage():
            require_file_size(path.stat().st_size)
            pixels = image_decoding.decode_pixels(path.read_bytes())
    except ImageError as error:
        raise ImageFileError(f"{error}.") from None
    return replace(prepare_pixels(pixels, bit_depth=bit_depth, name=str(path)), name=str(path))
