"""Crops of pictures that keep their own size: what is trained on in their place.

A large picture is mostly background, of which a few crops say all. So half of the crops are taken evenly from the whole
grid, and half by chance, the likelier the more there is to see in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_CROPS = 1024  # the teacher's features of which take 0.7 GiB at 256 px with `edge`
LEAST_INTEREST = 0.05  # of the usual one: no crop is out of the question


class Crop(NamedTuple):
    """A square cut out of a picture.

    Attributes:
        picture: its position among the pictures.
        top, left: of the square's upper left corner, pixels.
    """

    picture: int
    top: int
    left: int


def choose_crops(
    pictures: NDArray[np.uint8], *, size: int, seed: int, most: int = MAX_CROPS
) -> tuple[NDArray[np.uint8], list[Crop]]:
    """Crops [M, size, size, 3] uint8 of pictures [N, H, W, 3], and where they lie; all of the grid up to `most`.

    Args:
        pictures: of one size.
        size: side of a crop, pixels; a picture that is narrower gives crops as wide as it is.
        seed: of what is left to chance.
        most: crops, at least one.
    """
    grid = [
        Crop(picture, top, left)
        for picture in range(len(pictures))
        for top in _starts(pictures.shape[1], size)
        for left in _starts(pictures.shape[2], size)
    ]
    chosen = grid
    if len(grid) > most:
        evenly = np.linspace(0, len(grid) - 1, num=(most + 1) // 2).astype(int)
        interest = np.array([_interest(cut(pictures, crop, size)) for crop in grid])
        interest += LEAST_INTEREST * max(float(interest.mean()), 1e-9)
        interest[evenly] = 0
        by_chance = np.random.default_rng(seed).choice(
            len(grid), size=most - len(evenly), replace=False, p=interest / interest.sum()
        )
        chosen = [grid[index] for index in sorted({*evenly.tolist(), *by_chance.tolist()})]
    return np.stack([cut(pictures, crop, size) for crop in chosen]), chosen


def cut(pictures: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """The crop's pixels [size, size, 3]."""
    return np.asarray(pictures[crop.picture, crop.top : crop.top + size, crop.left : crop.left + size])


def _starts(side: int, size: int) -> Iterator[int]:
    """Where crops begin along a side: one after the other, the last one at its end."""
    yield from range(0, max(side - size, 0), size)
    yield max(side - size, 0)


def _interest(crop: NDArray[np.uint8]) -> float:
    """How much there is to see: the mean difference of neighbouring pixels."""
    grey = crop.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
