"""The size at which networks see pictures: the side of a square, or height and width, in pixels.

A square is one whole number, as it always was, so that checkpoints, records, names and ids of squares stay what they
are; any other rectangle is a pair. `NATIVE` is no size of its own: each picture keeps the one that it came with. Files
hold a number or `[height, width]`, texts and names `256`, `384x512` or `native`. All stages may import it: it needs
nothing but Python's own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

ImageSize: TypeAlias = int | tuple[int, int]

SIDE_STEP = 32  # the backbones halve a picture five times
SMALLEST_SIDE = 32
LARGEST_SIDE = 2048  # a side's fusion matrix takes 16 MB then
NATIVE = (
    -1
)  # of each picture, whose sides are filled up to multiples of 32; as Triton names a side of any length
NATIVE_TEXT = "native"


def height_width(size: ImageSize) -> tuple[int, int]:
    """Height and width in pixels; -1 each of pictures at their own size."""
    return (size, size) if isinstance(size, int) else size


def filled_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that networks see a picture at which keeps its own: the next multiples of 32."""
    return -(-height // SIDE_STEP) * SIDE_STEP, -(-width // SIDE_STEP) * SIDE_STEP


def image_size(height: int, width: int) -> ImageSize:
    """The size of a height and a width: one number where they are equal."""
    return height if height == width else (height, width)


def n_pixels(size: ImageSize) -> int:
    """Pixels of a picture."""
    height, width = height_width(size)
    return height * width


def stage_shape(size: ImageSize, stride: int) -> tuple[int, int]:
    """Rows and columns of a feature map with a position every `stride` pixels."""
    height, width = height_width(size)
    return height // stride, width // stride


def size_text(size: ImageSize) -> str:
    """`256` for a square, `384x512` for 384 rows of 512 pixels, `native` for each picture's own."""
    if size == NATIVE:
        return NATIVE_TEXT
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def parse_size(value: Any) -> ImageSize:
    """A size as a file or a command line names it: 256, `256`, `384x512`, [384, 512], `native` or -1.

    Raises:
        ValueError: it has another form; or a side is no multiple of 32, or not from 32 to 2,048.
    """
    if value in (NATIVE, NATIVE_TEXT):
        return NATIVE
    sides = value.lower().split("x") if isinstance(value, str) else value
    parts = list(sides) if isinstance(sides, Sequence) else [sides]
    try:
        if len(parts) > 2 or not all(type(part) in (int, str) for part in parts):
            raise ValueError
        height, width = (int(parts[0]), int(parts[-1]))
    except (ValueError, IndexError):
        raise ValueError("expected a side in pixels, height x width such as 384x512, or native") from None
    for side in (height, width):
        if side % SIDE_STEP or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise ValueError(
                f"expected multiples of {SIDE_STEP} from {SMALLEST_SIDE} to {LARGEST_SIDE}, such as 256 or 384x512 "
                "(height x width)"
            )
    return image_size(height, width)


def square_side(size: ImageSize) -> int:
    """The side of a square, for what measures squares alone.

    Raises:
        ValueError: it is another rectangle.
    """
    if not isinstance(size, int) or size == NATIVE:
        raise ValueError(f"expected a square, found {size_text(size)} pixels; take a square --image-size")
    return size
