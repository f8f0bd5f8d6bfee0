"""What good images give, as a release says in its ensemble's configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PARAMETER = "usual_scores"


@dataclass(frozen=True)
class Spread:
    """How values of good images lie: the least, the 5 % point, the median, the 95 % point and the highest."""

    least: float
    low: float
    median: float
    high: float
    most: float


@dataclass(frozen=True)
class Usual:
    """What good images gave that were held out from training.

    Attributes:
        n_images: how many there were.
        score: of their scores.
        stages: of what each stage added to them.
    """

    n_images: int
    score: Spread
    stages: tuple[Spread, Spread, Spread]


def read_usual(parameters: Mapping[str, str]) -> Usual | None:
    """What a release says of good images; None where it does not, or in another form: it was published before."""
    try:
        values = json.loads(parameters[PARAMETER])
        first, second, third = map(_spread, values["stages"])
        return Usual(int(values["n_images"]), _spread(values["score"]), (first, second, third))
    except (KeyError, TypeError, ValueError):
        return None


def _spread(values: Any) -> Spread:
    spread = Spread(**{field.name: float(values[field.name]) for field in fields(Spread)})
    if not all(math.isfinite(value) for value in vars(spread).values()):
        raise ValueError("not finite")
    return spread
