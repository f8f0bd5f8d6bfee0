"""Pictures of one size in memory, and where they are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_repository.distance_fusion.fusion_shown import shown_pixels


@dataclass(frozen=True)
class SentPictures:
    """Images as they lie, and how they were aligned.

    Attributes:
        pixels: [N, H, W, 3] uint8, RGB.
        shown: [N, H, W] bool, False where one is filled up; None where they fill theirs.
        motions: [N, 2, 3], see `model_repository.alignment.picture_alignment`.
    """

    pixels: NDArray[np.uint8]
    shown: NDArray[np.bool_] | None
    motions: NDArray[np.float32]


@dataclass(frozen=True)
class LoadedImages:
    """Images of one size in memory.

    Attributes:
        pixels: [N, H, W, 3] uint8, RGB.
        readable: positions of the images that could be read, in the list that was given.
        broken: one sentence for each image that could not be read.
        shown: [N, H, W] bool, False where an image is filled up or an aligned one repeats its edge, see
            `model_repository.distance_fusion.fusion_shown`; None where images are stretched onto all of theirs.
        sent: the same images before they were aligned; None where they are as they lie.
        boxes: [N, 4] int32, where each lies among what was sent: first row and column, and the first beyond it; None
            where images are stretched.
    """

    pixels: NDArray[np.uint8]
    readable: tuple[int, ...]
    broken: tuple[str, ...]
    shown: NDArray[np.bool_] | None = None
    sent: SentPictures | None = None
    boxes: NDArray[np.int32] | None = None


def shown_of(
    boxes: NDArray[np.int32] | None, shape: tuple[int, ...], motions: NDArray[np.float32] | None = None
) -> NDArray[np.bool_] | None:
    """`shown` of images by where they lie and how they were aligned, as the server finds it; `shape` begins N, H, W.

    None where nothing is known to lie beside them: they are stretched, and not aligned.
    """
    if boxes is None and motions is None:
        return None
    count, height, width = shape[:3]
    shown = shown_pixels(boxes, motions, (height, width), count)
    return np.ones(shape[:3], np.bool_) if shown is None else shown
