"""The tensors that cross a model's border: their names, and how one is described in Triton's words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

TEACHER_INPUTS = ("image",)
TEACHER_OUTPUTS = ("teacher_1", "teacher_2", "teacher_3")
STUDENT_INPUTS = ("image", *TEACHER_OUTPUTS)
DISTANCES = ("distance_1", "distance_2", "distance_3")
STUDENT_OUTPUTS = (*DISTANCES, "release_id")

ITEM_BYTES = {"UINT8": 1, "BOOL": 1, "FP16": 2, "FP32": 4, "INT32": 4, "INT64": 8}


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape without the batch of a tensor; -1 is any size."""

    name: str
    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"


def image_bytes(specs: Iterable[TensorSpec]) -> int:
    """Bytes of one image's part of tensors of fixed size."""
    return sum(ITEM_BYTES[spec.type] * math.prod(spec.shape) for spec in specs)
