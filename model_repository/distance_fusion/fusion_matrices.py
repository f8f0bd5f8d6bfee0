"""The matrices of the fusion, and the windows in which large maps are fused without a seam.

Upsampling, Gaussian blur and average pooling are linear, separable and local: what a pixel of the map holds depends on
distances no farther away than `reach`. So a large map is fused window by window, each with that margin around it, and
is the same as in one piece. Whole, its matrices would grow with the square of its side. Like `map_fusion` it runs in
the server too, and imports numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

STRIDES = (4, 8, 16)  # pixels for each position of the three stages' distance maps
WHOLE = 512  # pixels: the longest side that is fused in one piece
WINDOW = 256  # pixels of a window with its margins: less is multiplied than in large ones; still smaller ones cost time


@dataclass(frozen=True)
class Window:
    """Some pixels along one side of a map, and what they are fused from.

    Attributes:
        start, stop: the pixels.
        seen_start, seen_stop: those with the margin around them; multiples of the largest stride.
    """

    start: int
    stop: int
    seen_start: int
    seen_stop: int

    @property
    def seen(self) -> int:
        """Pixels with the margin."""
        return self.seen_stop - self.seen_start

    @property
    def kept(self) -> slice:
        """The pixels, counted from the first that is seen."""
        return slice(self.start - self.seen_start, self.stop - self.seen_start)

    def positions(self, stride: int) -> slice:
        """What is seen of a stage's distances."""
        return slice(self.seen_start // stride, self.seen_stop // stride)


def reach(sigma: float, window: int) -> int:
    """How many pixels away a distance still counts: in steps of the largest stride, at least one more than it does."""
    coarsest = STRIDES[-1]
    pixels = int(4 * sigma + 0.5) + window // 2 + coarsest  # blur, pooling, upsampling
    return -(-pixels // coarsest) * coarsest


def windows(side: int, *, sigma: float, window: int) -> Iterator[Window]:
    """The windows of a map's side; a single one up to `WHOLE` pixels.

    Args:
        side: pixels, a multiple of the largest stride where it is longer than WHOLE.
        sigma, window: of blur and pooling, see `Fusion`.
    """
    margin = reach(sigma, window)
    if side <= max(WHOLE, 4 * margin):
        yield Window(0, side, 0, side)
        return
    step = max(WINDOW - 2 * margin, 2 * margin)
    for start in range(0, side, step):
        stop = min(start + step, side)
        yield Window(start, stop, max(0, start - margin), min(side, stop + margin))


def upsampling_matrix(source: int, target: int) -> FloatArray:
    """Bilinear upsampling (`align_corners=False`) of one side as a [target, source] matrix."""
    position = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, source - 1)
    fraction = position - lower
    matrix = np.zeros((target, source), np.float32)
    rows = np.arange(target)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, upper), fraction)
    return matrix


def gaussian_matrix(size: int, sigma: float) -> FloatArray:
    """Gaussian blur of one side as a [size, size] matrix, as SciPy's `gaussian_filter`: to 4 sigma, border mirrored."""
    if sigma == 0:
        return np.eye(size, dtype=np.float32)
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    mirrored = (np.arange(size)[:, None] + offsets) % (2 * size)
    columns = np.minimum(mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((size, size), np.float64)
    np.add.at(matrix, (np.arange(size)[:, None], columns), kernel)
    return matrix.astype(np.float32)


def pooling_matrix(size: int, window: int) -> FloatArray:
    """Average pooling of one side, stride 1, over the pixels that exist, as a [size, size] matrix."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size))
    inside = (distance <= window // 2).astype(np.float32)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)


def fusion_matrix(source: int, *, target: int, sigma: float, window: int) -> FloatArray:
    """Upsampling, then blur, then pooling of one side as one [target, source] matrix."""
    blurred = gaussian_matrix(target, sigma) @ upsampling_matrix(source, target)
    return np.ascontiguousarray(pooling_matrix(target, window) @ blurred)


@lru_cache(maxsize=64)
def fusion_matrices(
    sources: tuple[int, ...], *, target: int, sigma: float, window: int
) -> tuple[FloatArray, ...]:
    """`fusion_matrix` of each stage, then all of them side by side; built once a shape."""
    matrices = [fusion_matrix(source, target=target, sigma=sigma, window=window) for source in sources]
    return *matrices, np.hstack(matrices)
