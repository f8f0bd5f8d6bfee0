"""What a training run wrote into its TensorBoard events, read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CURVES = ("loss/train", "loss/validation", "learning_rate")


@dataclass(frozen=True)
class TrainingCurve:
    """A scalar over the steps at which it was written, both [P]."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def read_training_curves(log_dir: Path) -> dict[str, TrainingCurve]:
    """The curves that are there of `CURVES`, by their TensorBoard tags; none where there are no events."""
    if not any(log_dir.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(log_dir), size_guidance={SCALARS: 0})  # 0: all points, no sample
    events.Reload()
    written = events.Tags()[SCALARS]
    return {tag: _curve(events.Scalars(tag)) for tag in CURVES if tag in written}


def _curve(points: list[Any]) -> TrainingCurve:
    steps = np.array([point.step for point in points], np.int64)
    values = np.array([point.value for point in points])
    return TrainingCurve(steps=steps, values=values)
