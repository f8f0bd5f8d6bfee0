"""A drawn part, and the same laid elsewhere."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 96
MIDDLE = (SIDE - 1) / 2


def drawn(side: tuple[int, int] = (SIDE, SIDE)) -> NDArray[np.uint8]:
    """A part without symmetry in the middle of a plain ground."""
    picture = np.full((*side, 3), (90, 100, 110), np.uint8)
    down, across = side[0] // 2, side[1] // 2
    cv2.rectangle(picture, (across - 22, down - 12), (across + 22, down + 12), (200, 190, 60), -1)
    cv2.circle(picture, (across + 14, down + 2), 6, (40, 40, 160), -1)
    cv2.line(picture, (across - 18, down - 8), (across + 2, down + 8), (20, 20, 20), 3)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8))


def laid(picture: NDArray[np.uint8], turn: float, right: float, down: float) -> tuple[Any, Any]:
    """The picture with its part turned about the middle and shifted, and the matrix that did so."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
    matrix[:, 2] += (right, down)
    moved = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    noise = np.random.default_rng(0).normal(scale=3, size=moved.shape)
    return (moved + noise).clip(0, 255).astype(np.uint8), matrix
