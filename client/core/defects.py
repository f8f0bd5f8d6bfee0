"""Where in an image its defects lie and how large they are, in pixels of the image as it came.

A mask [H, W] shows an image of W x H pixels as a square: one of its cells is W / S pixels wide and H / S high. Cells
that touch at a corner belong together (8-connectivity): a scratch that runs aslant is one cell wide in a mask, and is
one defect and not one a cell.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.core.errors import ClientError

CORNERS_TOUCH = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Defect:
    """One connected region of a mask, in pixels of the image as it came, upright.

    Attributes:
        left, top: of the smallest box of whole pixels around it; 0 is the image's left or upper edge.
        width, height: of that box, at least 1.
        area: pixels that it covers, at least 1.
        peak: the highest value of the anomaly map within it.
        mean: the mean of the map within it.
        centre_x, centre_y: of its area; pixels from the image's left and upper edge.
    """

    left: int
    top: int
    width: int
    height: int
    area: int
    peak: float
    mean: float
    centre_x: float
    centre_y: float

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return asdict(self)


def find_defects(
    mask: NDArray[np.bool_],
    anomaly_map: NDArray[np.float32],
    *,
    original_size: tuple[int, int],
    min_area: int = 0,
) -> tuple[Defect, ...]:
    """The connected regions of a mask [H, W] over its map [H, W], the one with the highest peak first.

    Args:
        mask: where the anomaly exceeds the pixel threshold.
        anomaly_map: of the same image.
        original_size: width and height of the image as it came, pixels.
        min_area: regions of fewer pixels of that image are left out.

    Raises:
        ClientError: scipy is not installed.
    """
    if not mask.any():
        return ()
    try:  # here, for programs that ask for no defects start without it
        from scipy import ndimage
    except ImportError:
        raise ClientError(
            "Defects are found with scipy, which is not installed; install the client's packages with "
            "`pip install 'astmfr[client]'`."
        ) from None
    labels, count = ndimage.label(mask, structure=CORNERS_TOUCH)
    found = _measured(labels, count, anomaly_map, original_size)
    kept = [defect for defect in found if defect.area >= min_area]
    return tuple(sorted(kept, key=lambda defect: (-defect.peak, defect.top, defect.left)))


def _measured(
    labels: NDArray[np.intp], count: int, anomaly_map: NDArray[np.float32], original_size: tuple[int, int]
) -> list[Defect]:
    """The regions that are labelled 1 to `count`, all at once: a noisy map may have tens of thousands."""
    rows, columns = np.nonzero(labels)
    which, values = labels[rows, columns] - 1, anomaly_map[rows, columns].astype(np.float64)
    n_cells = np.bincount(which, minlength=count)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, which, values)
    top, height, centre_y = _along(rows, which, n_cells, labels.shape[0], original_size[1])
    left, width, centre_x = _along(columns, which, n_cells, labels.shape[1], original_size[0])
    cell_area = (original_size[0] / labels.shape[1]) * (original_size[1] / labels.shape[0])
    areas = np.maximum(1, np.rint(n_cells * cell_area).astype(np.int64))
    means = np.minimum(np.bincount(which, values, minlength=count) / n_cells, peaks)
    columns_of_defect = (left, top, width, height, areas, peaks, means, centre_x, centre_y)
    return [Defect(*each) for each in zip(*(values.tolist() for values in columns_of_defect), strict=True)]


def _along(
    cells: NDArray[np.intp], which: NDArray[np.intp], n_cells: NDArray[np.intp], side: int, pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Where regions begin along one side of the image, how far they reach, and their centres, in its pixels.

    Args:
        cells: place of each marked cell along that side.
        which: region of each marked cell, counted from 0.
        n_cells: of each region.
        side: cells of the mask along that side.
        pixels: of the image along that side.
    """
    lowest, highest = np.full(len(n_cells), side), np.zeros(len(n_cells), np.int64)
    np.minimum.at(lowest, which, cells)
    np.maximum.at(highest, which, cells)
    # Whole numbers, so that no rounding error widens the box.
    first = lowest * pixels // side
    last = -(-(highest + 1) * pixels // side)
    centres = (np.bincount(which, cells, minlength=len(n_cells)) / n_cells + 0.5) * pixels / side
    return first, last - first, centres


def resize_map(anomaly_map: NDArray[np.float32], original_size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] at the size of its image, [H, W] float32.

    Along a side on which the image has more pixels than the map has cells, bilinearly in between the cells' centres.
    Where it has fewer, a pixel has the highest value of the cells that it covers: a mean would hide a small defect.

    Raises:
        ValueError: the size has no pixels.
    """
    width, height = original_size
    if min(original_size) < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no map")
    kept = _shrunk(_shrunk(anomaly_map, height).T, width).T
    image = Image.fromarray(np.ascontiguousarray(kept, np.float32))
    return np.asarray(image.resize(original_size, Image.Resampling.BILINEAR), np.float32)


def _shrunk(values: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
    """The highest values within each of `pixels` equal parts of the rows; all rows where they are no more than that."""
    rows = len(values)
    if rows <= pixels:
        return values
    return np.stack(
        [
            values[part * rows // pixels : -(-(part + 1) * rows // pixels)].max(axis=0)
            for part in range(pixels)
        ]
    )
