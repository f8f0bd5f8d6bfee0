"""Read image files with the very code that the server decodes with."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from client.core.errors import ImageFileError
from client.core.inputs import FILE
from model_repository.image_decoder.image_decoding import ImageError, read_image


def load_image(path: str | Path, *, bit_depth: int = 8) -> Image.Image:
    """Read an image file as upright 8-bit RGB.

    Args:
        path: the file.
        bit_depth: that of the category, `JudgeClient.bit_depth`; it counts for files with more than 8 bits a channel.

    Raises:
        ImageFileError: not an image, truncated, brighter than the bit depth allows, or it cannot be read.
    """
    try:
        image = read_image(Path(path), bit_depth=bit_depth)
    except ImageError as error:
        raise ImageFileError(f"{error}.") from None
    image.info[FILE] = str(path)
    return image
