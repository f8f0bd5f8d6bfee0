"""Where in an image its defects lie and how large they are, in pixels of the image as it came.

A mask [S, S] shows an image of W x H pixels as a square: one of its cells is W / S pixels wide and H / S high. Cells
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
    """The connected regions of a mask [S, S] over its map [S, S], the one with the highest peak first.

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
    labels, _ = ndimage.label(mask, structure=CORNERS_TOUCH)
    found = [
        _defect(labels[box] == number, anomaly_map[box], box, mask.shape, original_size)
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]
    kept = [defect for defect in found if defect.area >= min_area]
    return tuple(sorted(kept, key=lambda defect: (-defect.peak, defect.top, defect.left)))


def _defect(
    region: NDArray[np.bool_],
    values: NDArray[np.float32],
    box: tuple[slice, slice],
    shape: tuple[int, ...],
    original_size: tuple[int, int],
) -> Defect:
    """One region of cells, and the map's values, both of its box in the mask."""
    rows, columns = np.nonzero(region)
    within = values[region].astype(np.float64)
    top, height, centre_y = _along(rows + box[0].start, shape[0], original_size[1])
    left, width, centre_x = _along(columns + box[1].start, shape[1], original_size[0])
    cell_area = (original_size[0] / shape[1]) * (original_size[1] / shape[0])
    return Defect(
        left=left,
        top=top,
        width=width,
        height=height,
        area=max(1, round(len(rows) * cell_area)),
        peak=float(within.max()),
        mean=float(within.mean()),
        centre_x=centre_x,
        centre_y=centre_y,
    )


def _along(cells: NDArray[np.intp], n_cells: int, pixels: int) -> tuple[int, int, float]:
    """Where cells begin along one side of the image, how far they reach, and their centre, in its pixels."""
    # Whole numbers, so that no rounding error widens the box.
    first = int(cells.min()) * pixels // n_cells
    last = -(-(int(cells.max()) + 1) * pixels // n_cells)
    return first, last - first, (float(cells.mean()) + 0.5) * pixels / n_cells


def resize_map(anomaly_map: NDArray[np.float32], original_size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [S, S] at the size of its image, [H, W] float32; in between its cells' centres, bilinearly.

    Raises:
        ValueError: the size has no pixels.
    """
    if min(original_size) < 1:
        raise ValueError(f"an image of {original_size[0]} x {original_size[1]} pixels has no map")
    image = Image.fromarray(np.ascontiguousarray(anomaly_map, np.float32))
    return np.asarray(image.resize(original_size, Image.Resampling.BILINEAR), np.float32)
