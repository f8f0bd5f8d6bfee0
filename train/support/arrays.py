"""Names of array types that many signatures share, and values that are not finite, found where they arise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.errors import NotFiniteError

FloatArray = NDArray[np.float32]


def names_of_not_finite(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Names of those arrays that hold NaN or an infinity, sorted."""
    return sorted(name for name, array in arrays.items() if not np.isfinite(array).all())


def require_finite(values: NDArray[np.floating], *, what: str, remedy: str) -> None:
    """Require that all values [N, ...], one row an image, are finite.

    Raises:
        NotFiniteError: names the first image, counted from 1, and how many there are.
    """
    rows = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not rows.all():
        first, count = int(rows.argmin()) + 1, int((~rows).sum())
        raise NotFiniteError(
            f"{what} of {count} of {len(rows)} images are not finite, those of image {first} first; {remedy}."
        )
