"""How distance maps become a verdict: what a release was calibrated to, read and checked.

Like `map_fusion` it runs in the server too, and imports numpy alone.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
# What a calibration may hold. Image size and sigma bound the memory that a fusion matrix takes.
RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "release_id": (int, 0, 2**63 - 1),
    "image_size": (int, 1, 2048),
    "smoothing_sigma": (float, 0, 1024),
    "pool_size": (int, 1, 2048),
    "score_share": (float, 0, 1),
    "image_threshold": (float, -LARGEST, LARGEST),
    "pixel_threshold": (float, -LARGEST, LARGEST),
}


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the stages' distance maps become one anomaly map (Section 3.4).

    Attributes:
        image_size: side of the square anomaly map in pixels.
        smoothing_sigma: standard deviation of the Gaussian blur, in pixels.
        pool_size: side of the average pooling window, in pixels; odd.
        stage_weights: factor of each stage's distance map, at least 0.
    """

    image_size: int
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a release turns distance maps into verdicts; fitted on held-out good images.

    Attributes:
        release_id: the release it belongs to, see `train.checkpoint.tensors.release_id`.
        category: the product, for messages.
        image_size, smoothing_sigma, pool_size, stage_weights: see `Fusion`.
        image_threshold: an image whose score exceeds it is judged anomalous.
        pixel_threshold: a pixel whose anomaly exceeds it belongs to the predicted mask.
        foreground: how the background was removed, `none`, `threshold` or `sam`; older releases lack it: not at all.
        foreground_id: which SAM did it, see `train.calibration.sam`; 0 for the other two.
        score_share: see `image_scores`; older releases lack it: the maximum.
    """

    release_id: int
    category: str
    image_size: int
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]
    image_threshold: float
    pixel_threshold: float
    foreground: str = "none"
    foreground_id: int = 0
    score_share: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError that names each value no verdict can rest on: not finite, out of range or no number."""
        faults = [
            f"{name} {getattr(self, name)!r}, expected {least:.4g} to {most:.4g}"
            for name, (kind, least, most) in RANGES.items()
            if not is_number(getattr(self, name), least, most, kind=kind)
        ]
        weights = self.stage_weights
        if len(weights) != 3 or not any(weights) or not all(is_number(w, 0, LARGEST) for w in weights):
            faults.append(f"stage_weights {list(weights)}, expected three of at least 0, one of them above")
        if faults:
            raise ValueError(f"a calibration holds {'; '.join(faults)}")

    @property
    def fusion(self) -> Fusion:
        """The part of it that makes anomaly maps; the thresholds judge them."""
        return Fusion(**{field.name: getattr(self, field.name) for field in fields(Fusion)})

    def to_json(self) -> str:
        """The calibration as JSON text; a share of 0 is left out, for a fusion of before does not know it."""
        values = asdict(self)
        if not self.score_share:
            del values["score_share"]
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is no JSON object, a field is missing or unknown, or a value cannot be used.
        """
        values: Any = json.loads(text)
        expected = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, dict) or not required <= values.keys() <= expected:
            given = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"a calibration has the fields {sorted(expected)}, found {given}")
        weights = values["stage_weights"]
        return cls(**{**values, "stage_weights": tuple(weights) if isinstance(weights, list) else ()})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration from a file; raises as `from_json`, or OSError."""
        return cls.from_json(path.read_text(encoding="utf-8"))


def is_number(value: Any, least: float, most: float, *, kind: type[int] | type[float] = float) -> bool:
    """Whether it is a number within these bounds, where NaN never is; `kind` int takes whole numbers alone."""
    return isinstance(value, (kind, int)) and not isinstance(value, bool) and bool(least <= value <= most)
