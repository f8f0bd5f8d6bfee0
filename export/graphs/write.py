"""The graphs that are served, as torch modules, and their ONNX files.

teacher: image -> teacher_1..3.  student: image, teacher_1..3 -> distance_1..3, release_id.
SAM, where it removes the background: image -> foreground.
Normalisation is inside; masking, which belongs to training, is gone. The student's graph compares the features itself:
distance maps are hundreds of times smaller.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.graphs.static_padding import with_static_padding
from export.manifest import GraphFiles
from export.tensors import STRIDES, STUDENT_INPUTS, STUDENT_OUTPUTS, TEACHER_INPUTS, TEACHER_OUTPUTS
from model_repository.image_size import SIDE_STEP, ImageSize, height_width
from train.calibration.sam import SamForeground
from train.checkpoint.tensors import Checkpoint
from train.method.backbones import Backbone
from train.method.student import Student

OPSET = 18  # what Triton's ONNX Runtime and TensorRT's parser both read
SAMPLE_BATCH = 2  # with 1 the exporter takes the batch for a constant
SAMPLE_SIZE = (
    96,
    160,
)  # of pictures that keep their own: sides that differ, of several positions at each stage

DynamicDims = dict[int, Any]  # torch.export's dimensions by axis


class TeacherGraph(nn.Module):
    """`image` [B, H, W, 3] uint8 to three feature maps [B, C_n, h_n, w_n] float32."""

    def __init__(self, *, teacher: Backbone) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features at stages 1 to 3."""
        return tuple(self.teacher(image))


class StudentGraph(nn.Module):
    """`image` and the teacher's features to distance maps [B, h_n, w_n] float32 and `release_id` [B, 1] int64,
    which names the weights; the fusion makes the release's id of it."""

    def __init__(self, *, student: Student, scale: float, weights_id: int) -> None:
        super().__init__()
        self.student = student
        self.scale = scale
        # Not named release_id: a buffer with the name of an output makes the exporter write an invalid graph.
        self.register_buffer("release", torch.tensor([[weights_id]], dtype=torch.int64))
        self.release: Tensor

    def forward(
        self, image: Tensor, teacher_1: Tensor, teacher_2: Tensor, teacher_3: Tensor
    ) -> tuple[Tensor, ...]:
        """Distance maps at stages 1 to 3, and the id of the weights that made them."""
        distances = self.student.distances(image, (teacher_1, teacher_2, teacher_3), scale=self.scale)
        return *distances, self.release.expand(image.shape[0], 1)


def write_graphs(checkpoint: Checkpoint, files: GraphFiles) -> None:
    """Write teacher.onnx and student.onnx, batch dynamic, the image size that of the checkpoint.

    Where pictures keep their own size, rows and columns are dynamic too, multiples of 32.
    """
    native = checkpoint.config.is_native
    size = SAMPLE_SIZE if native else checkpoint.config.image_size
    image = torch.zeros(SAMPLE_BATCH, *height_width(size), 3, dtype=torch.uint8)
    networks: tuple[Backbone, Student] = (checkpoint.teacher, checkpoint.student)
    if native:
        networks = with_static_padding(checkpoint.teacher), with_static_padding(checkpoint.student)
    teacher = TeacherGraph(teacher=networks[0]).eval()
    student = StudentGraph(
        student=networks[1], scale=checkpoint.config.distance_scale, weights_id=checkpoint.weights_id
    ).eval()
    with torch.inference_mode():
        features = teacher(image)
    _write(
        teacher,
        (image,),
        files.teacher,
        inputs=TEACHER_INPUTS,
        outputs=TEACHER_OUTPUTS,
        dynamic=_dynamic_dims(1, native=native),
    )
    _write(
        student,
        (image, *features),
        files.student,
        inputs=STUDENT_INPUTS,
        outputs=STUDENT_OUTPUTS,
        dynamic=_dynamic_dims(len(STUDENT_INPUTS), native=native),
    )


def _dynamic_dims(n_inputs: int, *, native: bool) -> tuple[DynamicDims, ...]:
    """Which dimensions of the image, and of features after it, are any: the batch, and of native pictures the sides."""
    batch = torch.export.Dim("batch", min=1)
    if not native:
        return tuple({0: batch} for _ in range(n_inputs))
    rows, columns = (torch.export.Dim(f"{name}_by_32", min=1) for name in ("rows", "columns"))
    image = {0: batch, 1: SIDE_STEP * rows, 2: SIDE_STEP * columns}
    features = [
        {0: batch, 2: SIDE_STEP // stride * rows, 3: SIDE_STEP // stride * columns} for stride in STRIDES
    ]
    return (image, *features)[:n_inputs]


def write_foreground_graph(sam: SamForeground, path: Path, *, image_size: ImageSize) -> None:
    """Write foreground.onnx; SAM's own resizing and normalisation are inside."""
    image = torch.zeros(SAMPLE_BATCH, *height_width(image_size), 3, dtype=torch.uint8)
    dynamic = _dynamic_dims(1, native=False)
    _write(sam, (image,), path, inputs=("image",), outputs=("foreground",), dynamic=dynamic)


def _write(
    module: nn.Module,
    sample: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[DynamicDims, ...],
) -> None:
    with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecations
        torch.onnx.export(
            module,
            sample,
            path,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            verbose=False,
        )
