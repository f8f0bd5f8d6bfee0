"""One answer: a line of predictions.jsonl."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl.

    Attributes:
        image: the file.
        defect: what the image really is (`good`, or a defect kind), where its folder tells.
        score, threshold, anomalous, release_id: the verdict.
        latency_ms: of the call, milliseconds.
        synthetic: the judge was trained on rendered images.
        overlay: the picture that was drawn, if any.
    """

    image: str
    category: str
    defect: str | None
    score: float
    threshold: float
    anomalous: bool
    release_id: int
    latency_ms: float
    synthetic: bool
    overlay: str | None

    def to_json(self) -> str:
        """The line; ASCII, so that a file name of any encoding is read back as it was.

        Raises:
            ValueError: a figure is not finite.
        """
        return json.dumps(asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, line: str | bytes) -> Prediction:
        """Read a line.

        Raises:
            ValueError, TypeError: it is of another form, or a figure is not finite.
        """
        prediction = cls(**json.loads(line))
        for name in ("image", "category"):
            _require(prediction, name, str)
        for name in ("defect", "overlay"):
            _require(prediction, name, str, type(None))
        for name in ("anomalous", "synthetic"):
            _require(prediction, name, bool)
        _require(prediction, "release_id", int)
        for name in ("score", "threshold", "latency_ms"):
            _require(prediction, name, int, float)
            if not math.isfinite(getattr(prediction, name)):
                raise ValueError(f"{name} is {getattr(prediction, name)}, expected a finite number")
        return prediction


def _require(prediction: Prediction, name: str, *types: type) -> None:
    value = getattr(prediction, name)
    if type(value) not in types:  # not isinstance: True is no number here
        expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
        raise ValueError(f"{name} is {value!r}, expected {expected}")
