"""What a caller gives besides images: checked before anything is sent."""

from __future__ import annotations

import math
import operator
import reprlib
from numbers import Real
from typing import Any

import numpy as np

from client.core.errors import RequestError
from model_repository.category_names import category_fault, shown

LONGEST_TIMEOUT_S = 1e6  # gRPC takes much longer ones for none at all
LARGEST_THRESHOLD = float(np.finfo(np.float32).max)  # scores are 32-bit floats


def check_category(category: Any) -> str:
    """The name of a category.

    Raises:
        RequestError: it is no text, or empty.
    """
    if not isinstance(category, str) or not category:
        raise RequestError(
            f"The category is {reprlib.repr(category)}; expected the name of a published product, pill say."
        )
    if fault := category_fault(category):
        raise RequestError(f"Category {shown(category)} {fault}; give the name of a published product.")
    return category


def check_timeout(timeout_s: Any) -> float:
    """A deadline in seconds.

    Raises:
        RequestError: it is no number, not finite, or not above 0.
    """
    value = _number(timeout_s)
    if value is None or not 0 < value <= LONGEST_TIMEOUT_S:
        raise RequestError(
            f"The timeout is {reprlib.repr(timeout_s)}; expected seconds, more than 0 and at most "
            f"{LONGEST_TIMEOUT_S:,.0f}."
        )
    return value


def check_threshold(threshold: Any) -> float | None:
    """An image threshold in place of the release's own, or None.

    Raises:
        RequestError: it is no number, not finite, or below 0.
    """
    if threshold is None:
        return None
    value = _number(threshold)
    if value is None or not 0 <= value <= LARGEST_THRESHOLD:
        raise RequestError(
            f"The threshold is {reprlib.repr(threshold)}; expected a finite number of at least 0."
        )
    return abs(value)  # 0 for -0


def check_count(count: Any, *, what: str) -> int:
    """How many images or requests go together.

    Args:
        count: at least 1.
        what: names it in the error.

    Raises:
        RequestError: it is no whole number, or below 1.
    """
    try:
        value = operator.index(count)
    except TypeError:
        value = 0
    if value < 1 or isinstance(count, bool):
        raise RequestError(f"{what} is {reprlib.repr(count)}; expected a whole number of at least 1.")
    return value


def check_min_area(min_area: Any) -> int:
    """How many pixels of the image a defect has at least.

    Raises:
        RequestError: it is no whole number, or below 0.
    """
    try:
        value = operator.index(min_area)
    except TypeError:
        value = -1
    if value < 0 or isinstance(min_area, bool):
        raise RequestError(
            f"The smallest area is {reprlib.repr(min_area)}; expected a whole number of pixels, at least 0."
        )
    return value


def check_on_error(on_error: Any) -> bool:
    """What becomes of an image that has no result; says whether that is returned in its place.

    Raises:
        RequestError: it is neither of the two.
    """
    if on_error not in ("raise", "return"):
        raise RequestError(f"on_error is {reprlib.repr(on_error)}; expected 'raise' or 'return'.")
    return bool(on_error == "return")


def _number(value: Any) -> float | None:
    """A finite number as a float; None for anything else, text too."""
    if isinstance(value, bool) or not isinstance(value, Real | np.integer | np.floating):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
