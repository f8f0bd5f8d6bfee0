"""Large pictures in strips: which pixels a strip is computed from, and how strips become one result without a seam.

A convolutional network sees no farther than its receptive field. So a strip that is computed with that margin around
it gives what one pass over the whole picture gives, in the memory of the strip. Pictures are cut across their longer
side. Server, training and export share this file, which imports numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 32  # pixels: pictures are multiples of it, and every stage has a position of its own there
THIN_MARGINS = 16  # of a thin strip, its margins a side
LEAST_PIXELS = 100_000  # of a thin strip: a run of fewer takes as long

Array = NDArray[Any]


@dataclass(frozen=True)
class Strip:
    """Some rows, or columns, of a picture.

    Attributes:
        axis: 0 where the picture is cut between rows, 1 where between columns.
        side: of the picture along that axis, pixels.
        start, stop: the pixels that the strip is to give.
        seen_start, seen_stop: those that it is computed from, with the margin.
    """

    axis: int
    side: int
    start: int
    stop: int
    seen_start: int
    seen_stop: int

    def cut(self, array: Array, *, rows_axis: int) -> Array:
        """What the strip is computed from.

        Args:
            array: of the whole picture, its rows along `rows_axis` and its columns along the next: pixels, or a
                feature map with a position every so many pixels.
            rows_axis: 1 of pixels [B, H, W, 3] and of maps [B, h, w], 2 of feature maps [B, C, h, w].
        """
        axis = rows_axis + self.axis
        stride = self.side // array.shape[axis]
        return _part(array, axis, self.seen_start // stride, self.seen_stop // stride)

    def own(self, array: Array, *, rows_axis: int) -> Array:
        """Of what was computed from the strip, the part that it is to give; `rows_axis` as of `cut`."""
        axis = rows_axis + self.axis
        stride = (self.seen_stop - self.seen_start) // array.shape[axis]
        first = self.seen_start
        return _part(array, axis, (self.start - first) // stride, (self.stop - first) // stride)


def strips(height: int, width: int, *, margin: int, pixels: int, step: int = STEP) -> list[Strip]:
    """The strips of a picture, in their order; a single one where the whole picture is within the budget.

    Args:
        height, width: of the picture, multiples of 32.
        margin: pixels on either side that a strip is computed from too; a multiple of `step`.
        pixels: that a strip with its margins may have. It has more where the margins alone need that.
        step: pixels at whose multiples strips begin and end.
    """
    axis = 0 if height >= width else 1
    side, across = max(height, width), min(height, width)
    seen = max(pixels // across // step * step, 2 * margin + max(margin, step))
    found: list[Strip] = []
    start = 0
    while start < side:
        first = max(0, start - margin)
        stop = side if side - first <= seen else first + seen - margin
        found.append(Strip(axis, side, start, stop, first, min(side, stop + margin)))
        start = stop
    return found


def join(parts: Sequence[Array], over: Sequence[Strip], *, rows_axis: int) -> Array:
    """What each strip gave, as of the whole picture: the margins left out; `rows_axis` as of `Strip.cut`."""
    if len(parts) == 1:
        return parts[0]
    owned = [strip.own(part, rows_axis=rows_axis) for strip, part in zip(over, parts, strict=True)]
    return np.concatenate(owned, axis=rows_axis + over[0].axis)


def in_strips(
    compute: Callable[[Array], list[Array]], images: Array, *, margin: int, pixels: int
) -> list[Array]:
    """What a chain of networks gives of pictures, computed strip by strip.

    Args:
        compute: gives maps [B, h, w] or [B, C, h, w] of [B, H, W, 3] pixels of any size that is a multiple of 32.
        images: [B, H, W, 3].
        margin, pixels: see `strips`; the margin of the whole chain.
    """
    height, width = images.shape[1:3]
    over = strips(height, width, margin=margin, pixels=pixels)
    parts = [compute(strip.cut(images, rows_axis=1)) for strip in over]
    return [join(maps, over, rows_axis=maps[0].ndim - 2) for maps in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Part:
    """A part of a network, as it is run over a large picture.

    Attributes:
        run: gives the outputs, in their order, of tensors by name.
        inputs: names of the tensors that it takes: pixels `image` [B, H, W, 3], and maps [B, h, w] or [B, C, h, w].
        outputs: names of those that it gives: maps likewise, or [B, 1], which is the same for every strip.
        step, margin: of its strips, see `strips`.
        pixels: that a strip with its margins may have at most.
    """

    run: Callable[[dict[str, Array]], list[Array]]
    inputs: Sequence[str]
    outputs: Sequence[str]
    step: int
    margin: int
    pixels: int

    def strips(self, height: int, width: int) -> list[Strip]:
        """Strips of a picture as thin as they can be with margins of an eighth, since those stay in the caches."""
        thin = THIN_MARGINS * self.margin * min(height, width)
        pixels = min(self.pixels, max(thin, LEAST_PIXELS))
        return strips(height, width, margin=self.margin, pixels=pixels, step=self.step)


def run_parts(parts: Sequence[Part], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """What a network gives of one picture, part after part, each in strips of its own.

    Args:
        parts: in the order in which they run.
        tensors: the network's inputs by name, `image` among them.

    Returns:
        The outputs of all parts by name.
    """
    height, width = tensors["image"].shape[1:3]
    known, found = dict(tensors), dict[str, Array]()
    for part in parts:
        over = part.strips(height, width)
        given = [
            part.run(
                {name: strip.cut(known[name], rows_axis=rows_axis(name, known[name])) for name in part.inputs}
            )
            for strip in over
        ]
        for name, values in zip(part.outputs, zip(*given, strict=True), strict=True):
            found[name] = (
                values[0] if values[0].ndim == 2 else join(values, over, rows_axis=values[0].ndim - 2)
            )
        known |= found
    return found


def rows_axis(name: str, array: Array) -> int:
    """Which axis of a tensor holds the rows: 1 of pixels and of maps [B, h, w], 2 of feature maps [B, C, h, w]."""
    return 1 if name == "image" else array.ndim - 2


def _part(array: Array, axis: int, start: int, stop: int) -> Array:
    places = [slice(None)] * array.ndim
    places[axis] = slice(start, stop)
    if start == 0 and stop == array.shape[axis]:
        return array
    return np.ascontiguousarray(array[tuple(places)])
