"""Distance maps of an image that the server has aligned, as they lie in the image that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOTION, ALIGNED_IMAGE = "motion", "aligned_image"  # tensors of an ensemble that aligns


def as_sent(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """A map [h, w] of one image, nearest position by nearest; 0 where the aligned image does not reach.

    Where nothing was aligned, it stays as it is.

    Args:
        tensors: of the ensemble, by its names, with a batch of one.
        name: of the map.
    """
    values: NDArray[np.float32] = tensors[name][0]
    if MOTION not in tensors:
        return values
    (rows, columns), (height, width) = values.shape, tensors[ALIGNED_IMAGE].shape[1:3]
    # Centres of positions, in pixels of the image that was sent.
    down = (np.arange(rows) + 0.5) * height / rows - 0.5
    across = (np.arange(columns) + 0.5) * width / columns - 0.5
    turned, shift = tensors[MOTION][0][:, :2].astype(np.float64), tensors[MOTION][0][:, 2].astype(np.float64)
    lying = np.stack(np.meshgrid(across, down), axis=-1)  # [h, w, 2]
    x, y = np.moveaxis((lying - shift) @ np.linalg.inv(turned).T, -1, 0)
    column, row = (
        np.floor((place + 0.5) * count / side).astype(int)
        for place, count, side in ((x, columns, width), (y, rows, height))
    )
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    return np.where(inside, values[row.clip(0, rows - 1), column.clip(0, columns - 1)], 0).astype(np.float32)
