"""One answer: a line of predictions.jsonl."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from client.core.defects import Defect
from client.core.verdicts import Score, Verdict


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
        original_size: width and height of the image, pixels, upright; None in lines of before.
        defects: regions of the mask, the one with the highest peak first, in pixels of the image; None with scores
            alone and in lines of before. An anomalous image may have none, and a good one some.
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
    original_size: tuple[int, int] | None = None
    defects: tuple[Defect, ...] | None = None

    @classmethod
    def of(
        cls,
        answer: Score,
        *,
        image: str,
        category: str,
        synthetic: bool,
        defect: str | None = None,
        overlay: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> Prediction:
        """The line of a server's answer.

        Args:
            answer: a verdict, or a score alone, which comes without regions.
            image, category, synthetic, defect, overlay: see the attributes.
            size: width and height of the image, upright, where it is known; a verdict knows it itself.
        """
        verdict = answer if isinstance(answer, Verdict) else None
        return cls(
            image=image,
            category=category,
            defect=defect,
            score=answer.score,
            threshold=answer.threshold,
            anomalous=answer.anomalous,
            release_id=answer.release_id,
            latency_ms=round(answer.latency_ms, 3),
            synthetic=synthetic,
            overlay=overlay,
            original_size=verdict.original_size if verdict else size,
            defects=verdict.defects if verdict else None,
        )

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
        values = json.loads(line)
        if not isinstance(values, dict):
            raise TypeError("no JSON object")
        for name, read in (("original_size", _size), ("defects", _defects)):
            if values.get(name) is not None:
                values[name] = read(values[name])
        prediction = cls(**values)
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


def _size(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int for side in value):
        raise ValueError(f"original_size is {value!r}, expected two whole numbers")
    return value[0], value[1]


def _defects(value: Any) -> tuple[Defect, ...]:
    if not isinstance(value, list):
        raise ValueError(f"defects is {value!r}, expected a list")
    defects = tuple(Defect(**each) for each in value)
    for defect in defects:
        for name, number in vars(defect).items():
            if type(number) not in (int, float) or not math.isfinite(number):
                raise ValueError(f"{name} of a defect is {number!r}, expected a finite number")
    return defects


def _require(prediction: Prediction, name: str, *types: type) -> None:
    value = getattr(prediction, name)
    if type(value) not in types:  # not isinstance: True is no number here
        expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
        raise ValueError(f"{name} is {value!r}, expected {expected}")
