"""Read image files with the very code that the server decodes with."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from client.judging.errors import ImageFileError
from model_repository.image_decoder.image_decoding import ImageError, read_image


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as upright 8-bit RGB.

    Raises:
        ImageFileError: not an image, truncated, or it cannot be read.
    """
    try:
        return read_image(Path(path))
    except ImageError as error:
        raise ImageFileError(f"{error}.") from None
