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

import torch
from torch import Tensor, nn

from export.manifest import GraphFiles
from export.tensors import STUDENT_INPUTS, STUDENT_OUTPUTS, TEACHER_INPUTS, TEACHER_OUTPUTS
from model_repository.image_size import ImageSize, height_width
from train.calibration.sam import SamForeground
from train.checkpoint.tensors import Checkpoint
from train.method.backbones import Backbone
from train.method.student import Student

OPSET = 18  # what Triton's ONNX Runtime and TensorRT's parser both read
SAMPLE_BATCH = 2  # with 1 the exporter takes the batch for a constant


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
    """Write teacher.onnx and student.onnx, batch dynamic, the image size that of the checkpoint."""
    image = torch.zeros(SAMPLE_BATCH, *height_width(checkpoint.config.image_size), 3, dtype=torch.uint8)
    teacher = TeacherGraph(teacher=checkpoint.teacher).eval()
    student = StudentGraph(
        student=checkpoint.student, scale=checkpoint.config.distance_scale, weights_id=checkpoint.weights_id
    ).eval()
    with torch.inference_mode():
        features = teacher(image)
    _write(teacher, (image,), files.teacher, inputs=TEACHER_INPUTS, outputs=TEACHER_OUTPUTS)
    _write(student, (image, *features), files.student, inputs=STUDENT_INPUTS, outputs=STUDENT_OUTPUTS)


def write_foreground_graph(sam: SamForeground, path: Path, *, image_size: ImageSize) -> None:
    """Write foreground.onnx; SAM's own resizing and normalisation are inside."""
    image = torch.zeros(SAMPLE_BATCH, *height_width(image_size), 3, dtype=torch.uint8)
    _write(sam, (image,), path, inputs=("image",), outputs=("foreground",))


def _write(
    module: nn.Module,
    sample: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    batch = torch.export.Dim("batch", min=1)
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
            dynamic_shapes=tuple({0: batch} for _ in sample),
            verbose=False,
        )
