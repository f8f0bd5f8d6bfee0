"""Where a category's images are inspected: polygons, and the pixels of an anomaly map that count.

Like `map_fusion` it runs in the server too, and imports numpy alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Corner = tuple[float, float]
Polygon = tuple[Corner, ...]
BoolArray = NDArray[np.bool_]

LEAST_CORNERS = 3
MOST_CORNERS = 10_000  # of all polygons together
SIDE_STEP = (
    32  # images that keep their own size are filled up to multiples of it, see `model_repository.image_size`
)
FIELDS = ("size", "inspect", "ignore")


class UnjudgeableImageError(ValueError):
    """What is wrong with an image, whoever judges it."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """What is inspected of each image and what is ignored, as polygons; one may cross itself (even-odd rule).

    Attributes:
        size: width and height that corners are pixels of: the anomaly map's; of images that keep their own, theirs.
        inspect: what lies in any of these counts; none: all of the map.
        ignore: what lies in any of these never counts.
    """

    size: tuple[int, int]
    inspect: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError about a size that no image has, or a polygon that no area follows from."""
        if len(self.size) != 2 or not all(type(side) is int and side > 0 for side in self.size):
            raise ValueError(f"regions have the size {self.size!r}; expected a width and a height in pixels")
        polygons = (*self.inspect, *self.ignore)
        if sum(map(len, polygons)) > MOST_CORNERS:
            raise ValueError(f"regions have more than {MOST_CORNERS:,} corners")
        for polygon in polygons:
            if len(polygon) < LEAST_CORNERS:
                raise ValueError(f"a region has {len(polygon)} corners; expected at least {LEAST_CORNERS}")
            for corner in polygon:
                within = all(0 <= place <= side for place, side in zip(corner, self.size, strict=True))
                if not (all(map(math.isfinite, corner)) and within):
                    raise ValueError(f"a region has a corner at {corner}, outside of {self.size} pixels")

    @classmethod
    def from_values(cls, values: Any) -> Regions:
        """Those that JSON holds: an object of `size`, `inspect` and `ignore`.

        Raises:
            ValueError: it has another form.
        """
        if not isinstance(values, dict) or set(values) != set(FIELDS):
            raise ValueError(f"regions have the fields {list(FIELDS)}, found {values!r:.200}")
        try:
            inspect, ignore = (
                tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in values[name])
                for name in ("inspect", "ignore")
            )
            size = tuple(values["size"])
        except (TypeError, ValueError):
            raise ValueError(
                "regions are lists of polygons, each a list of corners [x, y] in pixels"
            ) from None
        return cls(size=size, inspect=inspect, ignore=ignore)


@lru_cache(maxsize=32)
def inspected_pixels(regions: Regions, shape: tuple[int, int]) -> BoolArray:
    """[H, W], read-only: which pixels of an anomaly map count: those whose centre lies where it is inspected.

    Args:
        regions: polygons.
        shape: rows and columns of the map: of the regions' size, or of that filled up to multiples of 32.

    Raises:
        UnjudgeableImageError: the regions are for maps of another size.
        ValueError: nothing is left to inspect.
    """
    width, height = regions.size
    if shape not in ((height, width), (_filled(height), _filled(width))):
        raise UnjudgeableImageError(
            f"regions are for images of {width} x {height} pixels; found an anomaly map of {shape[1]} x {shape[0]}"
        )
    counts = _union(regions.inspect, shape) if regions.inspect else np.ones(shape, bool)
    counts &= ~_union(regions.ignore, shape)
    if not counts.any():
        raise ValueError("regions leave nothing to inspect")
    counts.setflags(write=False)
    return counts


def polygon_pixels(polygon: Polygon, shape: tuple[int, int]) -> BoolArray:
    """[H, W]: which pixels of a map have their centre in a polygon, by the even-odd rule.

    Each edge turns inside to outside, and outside to inside, from where it crosses a row of centres to the right.
    """
    height, width = shape
    turns = np.zeros((height, width + 1), bool)
    centres = np.arange(height) + 0.5
    for (x, y), (next_x, next_y) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if y == next_y:
            continue
        rows = np.flatnonzero((centres >= min(y, next_y)) & (centres < max(y, next_y)))
        crossings = x + (centres[rows] - y) * (next_x - x) / (next_y - y)
        columns = np.floor(crossings + 0.5).clip(0, width).astype(np.intp)  # of the next centre
        turns[rows, columns] ^= True
    return np.asarray(np.logical_xor.accumulate(turns, axis=1)[:, :width])


def counted_pixels(
    foreground: BoolArray | None, regions: Regions | None, shape: tuple[int, ...]
) -> BoolArray | None:
    """[B, H, W]: which pixels of anomaly maps of a shape count; None for all of them.

    Args:
        foreground: [B, H, W], True on the part, or None where the background counts.
        regions: where the images are inspected, or None for everywhere.
        shape: of the maps, [B, H, W].

    Raises:
        UnjudgeableImageError: nothing is left of an image.
        ValueError: masks or regions for maps of another shape.
    """
    if foreground is not None:
        if foreground.shape != shape:
            raise ValueError(
                f"foreground has shape {list(foreground.shape)}; expected the anomaly map's, {list(shape)}"
            )
        require_images(
            np.asarray(foreground.any(axis=(1, 2))),
            "its foreground mask hides all of it",
            UnjudgeableImageError,
        )
    if regions is None:
        return foreground
    inspected = inspected_pixels(regions, (shape[1], shape[2]))
    if foreground is None:
        return np.broadcast_to(inspected, shape)
    counted: BoolArray = foreground & inspected
    require_images(
        np.asarray(counted.any(axis=(1, 2))),
        "its part lies in none of the regions",
        UnjudgeableImageError,
    )
    return counted


def require_images(holds: BoolArray, fault: str, kind: type[ValueError] = ValueError) -> None:
    """Raise an error about the images of a batch, counted from 1, for which something does not hold."""
    if not holds.all():
        images = ", ".join(map(str, np.flatnonzero(~holds)[:10] + 1))
        raise kind(f"image {images} of {len(holds)} cannot be judged: {fault}")


def _union(polygons: tuple[Polygon, ...], shape: tuple[int, int]) -> BoolArray:
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        inside |= polygon_pixels(polygon, shape)
    return inside


def _filled(side: int) -> int:
    return -(-side // SIDE_STEP) * SIDE_STEP
