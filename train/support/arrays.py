"""Names of array types that many signatures share, and the check that an array's values are finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.errors import NotFiniteError

FloatArray = NDArray[np.float32]


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
