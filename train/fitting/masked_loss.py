"""The loss of a batch under given masks: the whole of a forward pass, in one function that can be compiled.

Compiled by itself, each of the student's modules counts as another version of the same code, once more for each size
of batch and in evaluation, and torch gives up after eight. So one function is compiled, for whole batches alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from train.errors import ConfigError
from train.method.distances import apply_masks
from train.method.student import Student

# Of a student, an image [B, H, W, 3], the teacher's features [B, C, h, w] and a mask [h, w] a stage, the precision of
# the student's layers (None: float32) and the distance's scale.
ComputeLoss = Callable[
    [Student, Tensor, Sequence[Tensor], Sequence[Tensor | None], torch.dtype | None, float], Tensor
]


def loss_under_masks(
    student: Student,
    image: Tensor,
    teacher_features: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    dtype: torch.dtype | None,
    scale: float,
) -> Tensor:
    """Regenerate the student's masked features, and compare with the teacher's (Algorithm 1, Eq. 5)."""
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
        regenerated = student.regenerate(apply_masks(student.backbone(image), masks))
    # Norms and sums over channels lose too much in half precision.
    in_float32 = [feature.float() for feature in regenerated]
    return student.loss(in_float32, teacher_features, scale=scale)


def compiler_fault(device: torch.device) -> str | None:
    """That torch.compile lacks the compiler that it calls for this device, in a phrase; None where it is here."""
    variable, usual = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", ("g++",))
    stated = os.environ.get(variable, "").split()  # perhaps with options: `gcc -pthread`
    names = (stated[0],) if stated else usual
    if any(shutil.which(name) for name in names):
        return None
    return (
        f"torch.compile needs a C compiler, and {' or '.join(names)} is not on PATH; install one (apt-get install g++) "
        f"or set {variable}"
    )


def require_compiler(device: torch.device) -> None:
    """Make sure that `compiled_loss` can be compiled, before anything else is computed.

    Raises:
        ConfigError: there is no compiler.
    """
    if fault := compiler_fault(device):
        raise ConfigError(f"--compile cannot be used here: {fault}, or leave --compile out.")


def compiled_loss(batch_size: int) -> ComputeLoss:
    """`loss_under_masks`, compiled for batches of that size; smaller ones are computed as ever."""
    compiled: ComputeLoss = torch.compile(loss_under_masks, dynamic=False)

    def compute(student: Student, image: Tensor, *others: Any) -> Tensor:
        function = compiled if len(image) == batch_size else loss_under_masks
        return function(student, image, *others)

    return compute
