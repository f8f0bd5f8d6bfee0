"""The tensors that pass between the served models: names, and types and shapes in Triton's words.

Needs no numpy: engines are built in a container that has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_repository.image_size import ImageSize, height_width, stage_shape

ENCODED = "_encoded"  # ends the name of the ensemble that takes image files
TEACHER_INPUTS = ("image",)
TEACHER_OUTPUTS = ("teacher_1", "teacher_2", "teacher_3")
STUDENT_INPUTS = ("image", *TEACHER_OUTPUTS)
DISTANCES = ("distance_1", "distance_2", "distance_3")
STUDENT_OUTPUTS = (*DISTANCES, "release_id")
STRIDES = (4, 8, 16)  # of the three stages

ITEM_BYTES = {"UINT8": 1, "BOOL": 1, "FP16": 2, "FP32": 4, "INT32": 4, "INT64": 8}


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of a tensor, the shape without the batch; -1 is any size."""

    name: str
    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"


RELEASE_ID = TensorSpec("release_id", "INT64", (1,))
ENCODED_IMAGE = TensorSpec("encoded_image", "STRING", (1,))
ORIGINAL_SIZE = TensorSpec("original_size", "INT32", (2,))
# Of what networks see: the first row and column that show the picture of a file, and the first beyond it.
SHOWN = TensorSpec("shown", "INT32", (4,))
MOTION = TensorSpec("motion", "FP32", (2, 3))  # from an aligned image to the one that was sent


def image_spec(image_size: ImageSize) -> TensorSpec:
    """The `image` tensor: RGB, 0 to 255."""
    return TensorSpec("image", "UINT8", (*height_width(image_size), 3))


def feature_specs(
    image_size: ImageSize, channels: Sequence[int], *, precision: str = "fp32"
) -> list[TensorSpec]:
    """The teacher's features at strides 4, 8 and 16; FP16 in half precision."""
    data_type = "FP16" if precision == "fp16" else "FP32"
    return [
        TensorSpec(name, data_type, (count, *stage_shape(image_size, stride)))
        for name, count, stride in zip(TEACHER_OUTPUTS, channels, STRIDES, strict=True)
    ]


def distance_specs(image_size: ImageSize) -> list[TensorSpec]:
    """The student's distance maps at strides 4, 8 and 16."""
    return [
        TensorSpec(name, "FP32", stage_shape(image_size, stride))
        for name, stride in zip(DISTANCES, STRIDES, strict=True)
    ]


def foreground_spec(image_size: ImageSize) -> TensorSpec:
    """The mask of the part, True inside; an image size of -1 is any."""
    return TensorSpec("foreground", "BOOL", height_width(image_size))


def image_bytes(specs: Iterable[TensorSpec]) -> int:
    """Bytes that one image takes in these tensors, all of fixed size."""
    return sum(ITEM_BYTES[spec.type] * math.prod(spec.shape) for spec in specs)
