"""Values that are no numbers, found where they arise, so that nothing is trained or judged with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def names_of_not_finite(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Names of those arrays that hold NaN or an infinity, sorted."""
    return sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
