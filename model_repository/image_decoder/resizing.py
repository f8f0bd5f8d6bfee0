"""RGB images of any size as the networks see them: the one way that training, server and client resize an image.

It is Pillow's bilinear filter, which averages over the source pixels when it shrinks (antialias). The file runs in the
server's environment too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STEP = 32  # pixels; the backbones halve an image five times


def is_native(size: int | tuple[int, int]) -> bool:
    """Whether images keep their own size, see `model_repository.image_size`."""
    return size in (-1, (-1, -1))


def resize_image(
    image: Image.Image | NDArray[np.uint8], size: int | tuple[int, int], *, keep_aspect: bool = False
) -> NDArray[np.uint8]:
    """Resize to a square, aspect ratio given up, as in the paper's protocol (Section 4.1), or to another rectangle.

    An image that keeps its own size is filled alone.

    Args:
        image: RGB, a Pillow image or [H, W, 3].
        size: side of the square, or height and width, in pixels; -1 for the image's own, filled up to multiples of
            32 at the right and below by repeating its edge.
        keep_aspect: the image keeps its shape in the middle, and what is left beside it repeats its edge.

    Returns:
        [H, W, 3] uint8, RGB in 0..255.
    """
    if is_native(size):
        return _filled(np.asarray(image))
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    height, width = size if isinstance(size, tuple) else (size, size)
    if not keep_aspect:
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    rows, columns = fitted_part(image.size, (height, width))
    shown = (columns.stop - columns.start, rows.stop - rows.start)
    kept = np.asarray(image.resize(shown, Image.Resampling.BILINEAR))
    beside = ((rows.start, height - rows.stop), (columns.start, width - columns.stop), (0, 0))
    return np.pad(kept, beside, mode="edge")


def _filled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] filled up to multiples of 32; large ones that are so already are not copied."""
    below, beyond = (-side % STEP for side in pixels.shape[:2])
    if not below and not beyond:
        return pixels
    return np.pad(pixels, ((0, below), (0, beyond), (0, 0)), mode="edge")


def fitted_part(picture: tuple[int, int], size: int | tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns that a picture takes where it keeps its shape: as large as fits, in the middle.

    Args:
        picture: its width and height, pixels.
        size: side of the square, or height and width, that it is resized to; -1 for its own.
    """
    if is_native(size):
        return slice(0, picture[1]), slice(0, picture[0])
    height, width = size if isinstance(size, tuple) else (size, size)
    # Whole numbers, so that training, server and client come to the same rows on any machine.
    if picture[1] * width >= picture[0] * height:  # it is the taller one
        rows, columns = height, max(1, (2 * picture[0] * height + picture[1]) // (2 * picture[1]))
    else:
        rows, columns = max(1, (2 * picture[1] * width + picture[0]) // (2 * picture[0])), width
    rows, columns = min(rows, height), min(columns, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)
