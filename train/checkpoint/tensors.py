"""A checkpoint: networks, calibration and history in one safetensors file, written and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from model_repository.alignment.reference_picture import Reference
from model_repository.distance_fusion.map_fusion import Calibration
from model_repository.image_size import height_width
from train.checkpoint.header import (
    CORRELATION_TENSOR,
    FOREGROUND_CODES,
    FOREGROUND_TENSOR,
    FORMAT,
    PICTURE_ONLY_TENSOR,
    REFERENCE_TENSOR,
    calibration_of,
    read_header,
    require_finite,
    tensors_id_of,
    weights_id_of,
    with_release_id,
)
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.errors import CheckpointError
from train.method.backbones import Backbone
from train.method.student import Student, build_student
from train.support.arrays import names_of_not_finite
from train.support.files import replacing

CALIBRATION_SHAPES: dict[str, tuple[int, ...]] = {
    "calibration.stage_weights": (3,),
    "calibration.image_threshold": (),
    "calibration.pixel_threshold": (),
}


@dataclass(frozen=True)
class Checkpoint:
    """All that a trained category is judged with, and its history."""

    config: FitConfig
    provenance: Provenance
    calibration: Calibration
    teacher: Backbone
    student: Student
    reference: Reference | None = None  # what pictures are aligned to; None where they are judged as they lie

    @property
    def release_id(self) -> int:
        """Of weights, calibration and fusion code, as every verdict names it."""
        return self.calibration.release_id

    @property
    def weights_id(self) -> int:
        """Of what shapes the student's graph, which names it; see `train.checkpoint.header.weights_id_of`."""
        return self.calibration.weights_id


def tensors_id(tensors: Mapping[str, Tensor]) -> int:
    """An id that changes with any tensor; see `train.checkpoint.header.tensors_id_of`."""
    return tensors_id_of(_arrays(tensors))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint whole or not at all; return the release id that it has there, not the calibration's field.

    Raises:
        CheckpointError: a weight, a buffer or a threshold is not finite; what stood at `path` stays.
        StorageError: the file cannot be written; what stood there stays.
    """
    tensors = _network_tensors(checkpoint.teacher, checkpoint.student)
    tensors |= _calibration_tensors(checkpoint.calibration) | _reference_tensors(checkpoint.reference)
    wrong = names_of_not_finite(_arrays(tensors))
    if wrong:
        raise CheckpointError(
            f"{path} was not written: {len(wrong)} of {len(tensors)} tensors are not finite, {wrong[0]} among them; "
            "train again, with a lower --learning-rate."
        )
    metadata = {
        "format": FORMAT,
        "config": checkpoint.config.model_dump_json(),
        "provenance": checkpoint.provenance.model_dump_json(),
    }
    with replacing(path) as temporary:
        # Written by Python, which reports a full disk as an OSError; safetensors' own writer does not.
        temporary.write_bytes(save(tensors, metadata=metadata))
    weights_id = weights_id_of(_arrays(tensors), checkpoint.config, checkpoint.provenance.category)
    return with_release_id(replace(checkpoint.calibration, weights_id=weights_id)).release_id


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and build its networks, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: see `read_header`; or its tensors are not finite, or not those that its configuration needs.
    """
    header = read_header(path)
    tensors = load_file(path)
    config = header.config
    unset = (0.0, 0.0, 0.0)  # mean and std, as every weight, come from the file
    teacher = Backbone(config.teacher, mean=unset, std=unset, can_sharpen=config.can_sharpen)
    student = build_student(
        config, backbone=Backbone(config.student, mean=unset, std=unset), teacher_channels=teacher.channels
    )
    expected = {name: tuple(tensor.shape) for name, tensor in _network_tensors(teacher, student).items()}
    expected |= CALIBRATION_SHAPES
    if config.foreground != "none":
        expected[FOREGROUND_TENSOR] = (2,)
    if PICTURE_ONLY_TENSOR in tensors:  # older checkpoints lack it: they count all of a map
        expected[PICTURE_ONLY_TENSOR] = ()
    if header.provenance.aligned:
        expected |= {REFERENCE_TENSOR: height_width(config.image_size), CORRELATION_TENSOR: ()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
    if wrong:
        raise CheckpointError(
            f"{path} does not fit its configuration: {len(wrong)} of {len(expected)} tensors are missing, foreign or "
            f"of another shape, {wrong[0]} among them; remove it and train again."
        )
    require_finite(path, _arrays(tensors))
    teacher.load_state_dict(_under("teacher.", tensors))
    student.load_state_dict(_under("student.", tensors))
    return Checkpoint(
        config=config,
        provenance=header.provenance,
        calibration=calibration_of(_arrays(tensors), header, path),
        teacher=teacher.eval().requires_grad_(False),
        student=student.eval().requires_grad_(False),
        reference=_reference_of(tensors) if header.provenance.aligned else None,
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _network_tensors(teacher: Backbone, student: Student) -> dict[str, Tensor]:
    tensors = {f"teacher.{name}": tensor for name, tensor in teacher.state_dict().items()}
    tensors |= {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _calibration_tensors(calibration: Calibration) -> dict[str, Tensor]:
    """Thresholds, stage weights and foreground as tensors: verdicts depend on them, so they count in the release id."""
    tensors = {
        name: torch.tensor(getattr(calibration, name.removeprefix("calibration.")), dtype=torch.float64)
        for name in CALIBRATION_SHAPES
    }
    # Left out without a foreground: older checkpoints lack it, and their release ids must not change.
    if calibration.foreground != "none":
        code = FOREGROUND_CODES[calibration.foreground]
        tensors[FOREGROUND_TENSOR] = torch.tensor([code, calibration.foreground_id], dtype=torch.int64)
    if calibration.picture_only:
        tensors[PICTURE_ONLY_TENSOR] = torch.tensor(1, dtype=torch.uint8)
    return tensors


def _reference_tensors(reference: Reference | None) -> dict[str, Tensor]:
    """They shape what is judged, so that they count in the weights' id."""
    if reference is None:
        return {}
    least = torch.tensor(reference.least_correlation, dtype=torch.float64)
    return {REFERENCE_TENSOR: torch.from_numpy(reference.pixels.copy()), CORRELATION_TENSOR: least}


def _reference_of(tensors: Mapping[str, Tensor]) -> Reference:
    return Reference(tensors[REFERENCE_TENSOR].numpy(), tensors[CORRELATION_TENSOR].item())


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
