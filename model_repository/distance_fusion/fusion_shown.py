"""Which pixels of an anomaly map show the picture that was sent: what was made up beside it counts nowhere.

A picture that keeps its shape or its own size is filled up by repeating its edge, and an aligned one repeats it where
the picture that was taken ends. Both are one thing here: the four corners of what is shown, of a box that says where a
picture lies, moved by how it was aligned. Like `map_fusion` it runs in the server too, and imports numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

if __package__:
    from model_repository.distance_fusion.fusion_matrices import STRIDES
    from model_repository.distance_fusion.fusion_regions import polygon_pixels
else:  # in the server, where the files lie side by side
    from fusion_matrices import STRIDES  # type: ignore[import-not-found, no-redef]
    from fusion_regions import polygon_pixels  # type: ignore[import-not-found, no-redef]

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

PARAMETER = "shown"  # of a request that sends pixels: the boxes of its images, see `text_of_boxes`
SIDES = ("top", "left", "bottom", "right")


def shown_pixels(
    boxes: NDArray[Any] | None, motions: NDArray[Any] | None, shape: tuple[int, int], count: int
) -> BoolArray | None:
    """[B, H, W]: which pixels show the picture: those whose centre lies in it; None where all of them do.

    Args:
        boxes: [B, 4] whole numbers, the first row and column of each picture, and the first beyond it; None where
            pictures fill the map.
        motions: [B, 2, 3] from an aligned picture to the one that was sent, see `picture_alignment`; None where
            pictures are as they were sent.
        shape: rows and columns of the map.
        count: B.

    Raises:
        ValueError: a box without pixels or beyond the map, or arrays of another shape.
    """
    whole = (0, 0, *shape)
    own = np.tile(whole, (count, 1)) if boxes is None else np.asarray(boxes, np.int64)
    if own.shape != (count, 4) or (motions is not None and motions.shape != (count, 2, 3)):
        raise ValueError(f"what shows the pictures is of another shape than {count} boxes and motions")
    top, left, bottom, right = own.T
    if (
        not ((top >= 0) & (top < bottom) & (left >= 0) & (left < right)).all()
        or ((bottom > shape[0]) | (right > shape[1])).any()
    ):
        raise ValueError(
            f"pictures are shown at {own.tolist()} ({', '.join(SIDES)}); expected pixels of a map of {shape[0]} rows "
            f"and {shape[1]} columns"
        )
    if motions is None:
        if (own == whole).all():
            return None
        shown = np.zeros((count, *shape), bool)
        for mask, box in zip(shown, own.tolist(), strict=True):
            mask[box[0] : box[2], box[1] : box[3]] = True
        return shown
    return np.stack(
        [
            polygon_pixels(_moved(box, motion), shape)
            for box, motion in zip(own.tolist(), motions.astype(np.float64), strict=True)
        ]
    )


def _moved(box: list[int], motion: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """The corners (x, y) of a box of the picture that was sent, in the aligned one, from its upper left corner."""
    top, left, bottom, right = box
    (a, b, across), (c, d, down) = motion.tolist()
    scale = a * d - b * c
    corners = []
    for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)):
        # Motions are of pixels' centres, which are half a pixel from their edges.
        from_x, from_y = x - 0.5 - across, y - 0.5 - down
        corners.append(((d * from_x - b * from_y) / scale + 0.5, (a * from_y - c * from_x) / scale + 0.5))
    return tuple(corners)


def hide_beside(distances: list[FloatArray], shown: BoolArray | None) -> list[FloatArray]:
    """Distance maps [B, h, w] a stage, 0 at positions that show nothing of the picture; not finite ones stay so.

    Without this the blur would carry what lies beside the picture into it.

    Args:
        distances: of the three stages.
        shown: see `shown_pixels`.
    """
    if shown is None:
        return distances
    hidden, seen, stride = [], shown, 1
    for stage, coarser in zip(distances, STRIDES, strict=True):
        seen, stride = _any_of_blocks(seen, coarser // stride), coarser
        hidden.append(stage * seen)
    return hidden


def _any_of_blocks(seen: BoolArray, side: int) -> BoolArray:
    """[B, H / side, W / side]: whether any of a block of pixels [B, H, W] is True."""
    rows = seen[:, ::side].copy()
    for start in range(1, side):
        rows |= seen[:, start::side]
    blocks = rows[..., ::side].copy()
    for start in range(1, side):
        blocks |= rows[..., start::side]
    return blocks


def within_picture(foreground: BoolArray | None, shown: BoolArray | None) -> BoolArray | None:
    """[B, H, W]: what counts of each image: its part, where it is shown; None for all of it.

    A part is looked for in what networks see, and may be found beside the picture alone: there all that is shown
    counts, for no defect is hidden on a guess.
    """
    if foreground is None or shown is None:
        return shown if foreground is None else foreground
    if foreground.shape != shown.shape:
        return foreground  # which `counted_pixels` refuses
    both = foreground & shown
    nothing = ~both.any(axis=(1, 2))
    both[nothing] = shown[nothing]
    return np.asarray(both)


def text_of_boxes(boxes: NDArray[Any]) -> str:
    """Boxes [B, 4] as a request's parameter says them: `0,16,128,112`, those of several images parted by `;`."""
    return ";".join(",".join(map(str, box)) for box in boxes.tolist())


def boxes_of_text(text: Any, count: int) -> NDArray[np.int64]:
    """Boxes [B, 4] of as many images by what `text_of_boxes` gives.

    Raises:
        ValueError: it is no such text, or of another number of images.
    """
    try:
        boxes = np.array([[int(side) for side in box.split(",")] for box in text.split(";")], np.int64)
        if boxes.shape != (count, 4):
            raise ValueError
    except (AttributeError, ValueError, OverflowError):
        raise ValueError(
            f"{PARAMETER} is {text!r:.200}; expected {','.join(SIDES)} in pixels for each of {count} images, with ; "
            "between"
        ) from None
    return boxes
