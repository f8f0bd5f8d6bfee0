"""An image size for a category: from the shapes of its pictures, its smallest defect, and the time for an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model_repository.image_size import (
    LARGEST_SIDE,
    NATIVE,
    SIDE_STEP,
    ImageSize,
    filled_size,
    image_size,
    n_pixels,
    size_text,
)
from train.data.defect_sizes import DefectSize, smallest_at
from train.data.shapes import ImageShape, stretch

# Of the smallest defect where pictures are resized: two positions of stage 1, which has one every 4 pixels.
WANTED_PIXELS = 8.0
MOST_STRETCH = 1.1  # of one side of a picture against the other, where a nearer shape can be had
MUCH = 0.8  # of a defect's pixels: a size that keeps more of them is as good as the picture's own
MEGA = 1e6


@dataclass(frozen=True)
class Limits:
    """What an image size may cost.

    Attributes:
        n_pixels: that the networks take at most; None where nothing bounds them.
        ms_per_image: that an image may take, milliseconds; None for any time.
        ms_per_megapixel: that the networks take here; None where no time is asked for.
    """

    n_pixels: int | None = None
    ms_per_image: float | None = None
    ms_per_megapixel: float | None = None

    def ms(self, size: ImageSize) -> float:
        """Milliseconds for an image of a size."""
        return (self.ms_per_megapixel or 0.0) * n_pixels(size) / MEGA

    def allow(self, size: ImageSize) -> bool:
        """Whether a size keeps within them."""
        few_enough = self.n_pixels is None or n_pixels(size) <= self.n_pixels
        return few_enough and (self.ms_per_image is None or self.ms(size) <= self.ms_per_image)

    def allow_time(self, size: ImageSize) -> bool:
        """Whether a time is stated, and suffices; the number of pixels does not count."""
        return self.ms_per_image is not None and self.ms(size) <= self.ms_per_image

    def exceeded_by(self, size: ImageSize) -> str:
        """In words, how a size that is not allowed exceeds them."""
        if self.n_pixels is not None and n_pixels(size) > self.n_pixels:
            return f"has more than the {self.n_pixels:,} pixels that the distance mahalanobis has room for"
        return f"takes {self.ms(size):.3g} ms of {self.ms_per_image:g}"


@dataclass(frozen=True)
class Proposal:
    """An image size, why, and what a user should know of it: sentences."""

    size: ImageSize
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def propose_size(
    shapes: Sequence[ImageShape],
    defects: Sequence[DefectSize],
    *,
    usual: ImageSize,
    keep_aspect: bool,
    limits: Limits,
    may_keep_own: bool = False,
) -> Proposal:
    """Propose an image size in the shape of the pictures.

    With masks it is the smallest at which the smallest defect has `WANTED_PIXELS`, and no smaller than usual. Where no
    size keeps so many, and pictures at their own would keep more, that is proposed within a stated time, and told
    otherwise. Without masks it is the largest within the limits of time, and without these the one of about as many
    pixels as usual.

    Args:
        shapes: of the good images, at least one.
        defects: that masks mark.
        usual: the preset's size.
        keep_aspect: whether pictures keep their shape where they are resized.
        limits: on the size.
        may_keep_own: whether the other options allow that pictures keep their own size.
    """
    picture = sorted(shapes, key=lambda shape: shape.aspect)[len(shapes) // 2]
    any_size = sizes_of_shape(picture)
    sizes = [size for size in any_size if stretch(picture, size) <= MOST_STRETCH] or any_size
    allowed = [size for size in sizes if limits.allow(size)] or [
        max((size for size in any_size if limits.allow(size)), key=n_pixels, default=any_size[0])
    ]
    usual_size = min(sizes, key=lambda size: abs(math.log(n_pixels(size) / n_pixels(usual))))
    reasons = [f"pictures are {picture.width} x {picture.height} pixels, wide and high"]
    if defects:
        wanted = _wanted(
            [size for size in sizes if n_pixels(size) >= n_pixels(usual_size)], defects, keep_aspect
        )
    elif limits.ms_per_image is not None:
        wanted = allowed[-1]
    else:
        wanted = usual_size
        reasons.append(
            f"it has about as many as the preset's {size_text(usual)}, for no mask says how small defects are"
        )
    size = wanted if wanted in allowed else allowed[-1]
    smallest = smallest_at(defects, size, keep_aspect=keep_aspect)
    if may_keep_own and (why := _why_own_size(picture, smallest, size, limits)):
        return Proposal(NATIVE, (*reasons, *why))
    if smallest is not None:
        reasons.append(_of_defect(*smallest))
    if limits.ms_per_image is not None:
        reasons.append(
            f"an image takes {limits.ms(size):.3g} of {limits.ms_per_image:g} ms, by {limits.ms_per_megapixel:.0f} ms "
            "a megapixel in PyTorch on this machine; served graphs take less"
        )
    return Proposal(size, tuple(reasons), tuple(_warnings(size, wanted, smallest, limits)))


def sizes_of_shape(picture: ImageShape) -> list[ImageSize]:
    """All image sizes in about the shape of a picture, as near as multiples of 32 come, up to its own size."""
    long, short = picture.side, min(picture.width, picture.height)
    largest = min(LARGEST_SIDE, SIDE_STEP * -(-long // SIDE_STEP))
    sizes = []
    for side in range(SIDE_STEP, largest + 1, SIDE_STEP):
        other = max(SIDE_STEP, SIDE_STEP * round(side * short / long / SIDE_STEP))
        rows, columns = (other, side) if picture.width >= picture.height else (side, other)
        sizes.append(image_size(rows, columns))
    return sizes


def _wanted(sizes: Sequence[ImageSize], defects: Sequence[DefectSize], keep_aspect: bool) -> ImageSize:
    """The first size at which the smallest defect is as large as wanted; the largest where none is."""
    for size in sizes:
        smallest = smallest_at(defects, size, keep_aspect=keep_aspect)
        if smallest is None or smallest[1] >= WANTED_PIXELS:
            return size
    return sizes[-1]


def _needs_own_size(smallest: tuple[DefectSize, float] | None) -> bool:
    """Whether a size leaves too little of the smallest defect, of which pictures have much more at their own."""
    return smallest is not None and smallest[1] < min(WANTED_PIXELS, MUCH * smallest[0].side)


def _why_own_size(
    picture: ImageShape, smallest: tuple[DefectSize, float] | None, size: ImageSize, limits: Limits
) -> tuple[str, ...]:
    """Why pictures are to keep their own size in place of another; empty where that is enough, or the time is not."""
    own = image_size(*filled_size(picture.height, picture.width))
    if smallest is None or not (_needs_own_size(smallest) and limits.allow_time(own)):
        return ()
    defect, side = smallest
    return (
        f"the smallest defect, in {defect.mask_path}, is {defect.side:.1f} pixels wide, of which {size_text(size)} "
        f"would leave {side:.1f}",
        f"a picture takes {limits.ms(own):.3g} of {limits.ms_per_image:g} ms at its own size, by "
        f"{limits.ms_per_megapixel:.0f} ms a megapixel in PyTorch on this machine",
    )


def _of_defect(defect: DefectSize, side: float) -> str:
    return (
        f"the smallest defect, in {defect.mask_path}, is {defect.side:.1f} pixels wide and {side:.1f} at this size, "
        f"where {WANTED_PIXELS:g} are wanted: two positions of stage 1, which has one every 4"
    )


def _warnings(
    size: ImageSize, wanted: ImageSize, smallest: tuple[DefectSize, float] | None, limits: Limits
) -> list[str]:
    """What keeps the proposal from what is wanted."""
    sentences = []
    if not limits.allow(size):
        sentences.append(
            f"even the smallest size, {size_text(size)}, {limits.exceeded_by(size)}; allow more time, or take smaller "
            "networks"
        )
    elif size != wanted:
        sentences.append(f"{size_text(wanted)} was wanted and {limits.exceeded_by(wanted)}")
    if smallest is not None and smallest[1] < WANTED_PIXELS:
        defect, side = smallest
        sentences.append(
            f"the defect in {defect.mask_path} is {defect.side:.1f} pixels wide and only {side:.1f} at "
            f"{size_text(size)}, so that it may be passed over; {WANTED_PIXELS:g} were wanted"
        )
    if smallest is not None and _needs_own_size(smallest):
        sentences.append(
            f"--image-size native keeps all {smallest[0].side:.1f} pixels of it, and takes longer"
        )
    return sentences
