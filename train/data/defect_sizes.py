"""How large the defects are that a category's masks mark, in its pictures and where these are resized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from model_repository.image_size import NATIVE, ImageSize, height_width, size_text
from train.data.category import TestImage
from train.data.ground_truth import read_mask
from train.errors import DataError
from train.support.progress import console

# Stage 1, the finest, has a position every 4 pixels. A smaller defect has none to itself.
LEAST_PIXELS = 4.0


@dataclass(frozen=True)
class DefectSize:
    """The largest region that a mask marks.

    Attributes:
        mask_path: the mask.
        side: of a square of the same area, pixels of the picture.
        height, width: of the picture, pixels.
    """

    mask_path: Path
    side: float
    height: int
    width: int

    def resized(self, size: ImageSize, *, keep_aspect: bool) -> float:
        """The side where the picture is resized, pixels."""
        height, width = height_width(size)
        down, across = height / self.height, width / self.width
        return self.side * (min(down, across) if keep_aspect else (down * across) ** 0.5)


def defect_sizes(images: Iterable[TestImage]) -> list[DefectSize]:
    """Those of all masks that can be read and mark something; judging the images names the others."""
    sizes = []
    for path in dict.fromkeys(image.mask_path for image in images):
        try:
            marked = None if path is None else read_mask(path).marked
        except DataError:
            continue
        if path is not None and marked is not None and marked.any():
            regions, _ = ndimage.label(marked, structure=np.ones((3, 3)))
            area = int(np.bincount(regions[marked]).max())
            sizes.append(DefectSize(path, area**0.5, *marked.shape))
    return sizes


def smallest_at(
    defects: Iterable[DefectSize], size: ImageSize, *, keep_aspect: bool
) -> tuple[DefectSize, float] | None:
    """The defect that is smallest where pictures have this size, and its side then; None without any."""
    sides = [(defect.resized(size, keep_aspect=keep_aspect), defect) for defect in defects]
    if not sides:
        return None
    side, defect = min(sides, key=lambda pair: pair[0])
    return defect, side


def warn_of_small_defects(images: Iterable[TestImage], size: ImageSize, *, keep_aspect: bool) -> None:
    """Tell of a size at which a defect is smaller than `LEAST_PIXELS`; pictures of their own size show all there is."""
    if size == NATIVE:
        return
    smallest = smallest_at(defect_sizes(images), size, keep_aspect=keep_aspect)
    if smallest is None or smallest[1] >= LEAST_PIXELS:
        return
    defect, side = smallest
    console.print(
        f"Warning: the defect in {defect.mask_path} is {defect.side:.1f} pixels wide, and {side:.1f} at image size "
        f"{size_text(size)}; the networks look at every {LEAST_PIXELS:g} pixels, so that it may be passed over; take a "
        "larger --image-size, or --image-size auto.",
        style="yellow",
        markup=False,
    )
