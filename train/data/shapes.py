"""The shapes of a category's pictures, and whether they keep theirs where they are resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_repository.image_decoder.image_decoding import ImageError
from model_repository.image_size import NATIVE, SIDE_STEP, ImageSize, height_width, image_size, size_text
from train.data.category import CategoryData
from train.data.file_sizes import upright_size
from train.support.progress import console

SAME_SHAPE = 1.01  # width over height, of the widest image over that of the tallest
UNSEEN_STRETCH = 1.05  # of one side against the other; more is told


@dataclass(frozen=True)
class ImageShape:
    """An image file and its upright width and height in pixels."""

    path: Path
    width: int
    height: int

    @property
    def side(self) -> int:
        """The longer of both."""
        return max(self.width, self.height)

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    def __str__(self) -> str:
        return f"{'/'.join(self.path.parts[-3:])} ({self.width} x {self.height})"


def read_shape(path: Path) -> ImageShape | None:
    """A file's upright size; None for a broken file, which reading the images will name."""
    try:
        return ImageShape(path, *upright_size(path, decode=False))
    except ImageError:
        return None


def read_shapes(paths: Sequence[Path]) -> list[ImageShape]:
    """Those of all files that can be read."""
    return [shape for path in paths if (shape := read_shape(path)) is not None]


def differ_in_shape(shapes: Sequence[ImageShape]) -> bool:
    """Whether images are of more than one shape, whatever their sizes."""
    aspects = [shape.aspect for shape in shapes]
    return bool(aspects) and max(aspects) > SAME_SHAPE * min(aspects)


def keeps_aspect(data: CategoryData, *, asked: str, size: ImageSize, quiet: bool = False) -> bool:
    """Whether a category's pictures keep their shape where they are resized; told, unless `quiet`, where it matters.

    Args:
        data: the category's images; the good ones decide.
        asked: `auto`, `stretch` or `keep`, see `FitConfig.aspect`.
        size: that they are resized to.
    """
    if size == NATIVE:
        return False  # nothing is resized
    shapes = read_shapes(data.train_good)
    keep = asked == "keep" or (asked == "auto" and differ_in_shape(shapes))
    if shapes and not quiet and (sentence := _told(data.category, shapes, asked=asked, keep=keep, size=size)):
        console.print(sentence, style=None if keep else "yellow", markup=False)
    return keep


def stretch(shape: ImageShape, size: ImageSize) -> float:
    """How much one side of an image is stretched against the other where it fills a size, at least 1."""
    height, width = height_width(size)
    ratio = shape.aspect * height / width
    return max(ratio, 1 / ratio)


def _told(
    category: str, shapes: Sequence[ImageShape], *, asked: str, keep: bool, size: ImageSize
) -> str | None:
    """What a user is to know of it; None where nobody would see a difference."""
    tallest, widest = (choose(shapes, key=lambda shape: shape.aspect) for choose in (min, max))
    several = f"images of {category!r} differ in shape, from {tallest} to {widest}"
    filled = f"within {size_text(size)} pixels, and what is left beside it repeats its edge"
    if keep and asked == "auto":
        return f"{several[0].upper()}{several[1:]}: each keeps its shape {filled}; --aspect stretch makes them fill it."
    worst = max(shapes, key=lambda shape: stretch(shape, size))
    if stretch(worst, size) <= UNSEEN_STRETCH:
        return None
    if keep:
        return f"Images of {category!r} keep their shape {filled}, as asked for."
    if differ_in_shape(shapes):
        return f"Warning: {several}; all are stretched onto {size_text(size)} pixels, each differently, as asked for."
    fitting = alike(worst, size)
    remedy = (
        f"--image-size {size_text(fitting)} (height x width) would do so less, and "
        if fitting != size
        else ""
    )
    return (
        f"Images of {category!r} are {worst.width} x {worst.height} pixels and are stretched onto {size_text(size)}, "
        f"one side {stretch(worst, size):.2f} times as far as the other; {remedy}--aspect keep not at all."
    )


def alike(shape: ImageShape, size: ImageSize) -> ImageSize:
    """The size of about as many pixels that comes next to an image's shape."""
    height, width = height_width(size)
    area = height * width
    sides = ((area / shape.aspect) ** 0.5, (area * shape.aspect) ** 0.5)
    rows, columns = (max(SIDE_STEP, SIDE_STEP * round(side / SIDE_STEP)) for side in sides)
    return image_size(rows, columns)
