"""A checkpoint: all tensors that judge, and how they came to be, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from model_repository.distance_fusion.map_fusion import Calibration
from train.checkpoint.header import FORMAT, Header, read_header, release_id_of
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.errors import CheckpointError
from train.method.backbones import Backbone
from train.method.student import Student, build_student
from train.support.files import replacing

FOREGROUND_CODES = {"none": 0, "threshold": 1, "sam": 2}  # as a tensor says it


@dataclass(frozen=True)
class Checkpoint:
    """A trained judge: networks, calibration and history."""

    config: FitConfig
    provenance: Provenance
    calibration: Calibration
    teacher: Backbone
    student: Student

    @property
    def release_id(self) -> int:
        """Which weights judge; see `release_id`."""
        return self.calibration.release_id


def release_id(tensors: Mapping[str, Tensor]) -> int:
    """Which tensors these are; see `train.checkpoint.header.release_id_of`."""
    return release_id_of({name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()})


def save_checkpoint(
    path: Path,
    *,
    config: FitConfig,
    provenance: Provenance,
    calibration: Calibration,
    teacher: Backbone,
    student: Student,
) -> int:
    """Write a checkpoint whole or not at all, and return its release id."""
    tensors = _tensors(teacher, student, calibration)
    metadata = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "provenance": provenance.model_dump_json(),
    }
    with replacing(path) as temporary:
        # Through Python's own writing, whose fault on a full disk is an OSError.
        temporary.write_bytes(save(tensors, metadata=metadata))
    return release_id(tensors)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and build its networks, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: see `read_header`; or its tensors are not those that its configuration needs.
    """
    header = read_header(path)
    tensors = load_file(path)
    config = header.config
    # Built empty; every value comes from the file.
    unset = (0.0, 0.0, 0.0)  # the checkpoint holds mean and std
    teacher = Backbone(config.teacher, mean=unset, std=unset)
    student = build_student(
        config, backbone=Backbone(config.student, mean=unset, std=unset), teacher_channels=teacher.channels
    )
    expected = _tensors(teacher, student, replace(_UNSET_CALIBRATION, foreground=config.foreground))
    wrong = sorted(
        {name for name in expected if name not in tensors or tensors[name].shape != expected[name].shape}
        | (tensors.keys() - expected.keys())
    )
    if wrong:
        raise CheckpointError(
            f"{path} does not fit its configuration: {len(wrong)} of {len(expected)} tensors are missing, foreign or "
            f"of another shape, {wrong[0]} among them; remove it and train again."
        )
    teacher.load_state_dict(_under("teacher.", tensors))
    student.load_state_dict(_under("student.", tensors))
    return Checkpoint(
        config=config,
        provenance=header.provenance,
        calibration=_calibration(tensors, header, path),
        teacher=teacher.eval().requires_grad_(False),
        student=student.eval().requires_grad_(False),
    )


def _tensors(teacher: Backbone, student: Student, calibration: Calibration) -> dict[str, Tensor]:
    """Everything that a verdict depends on, thresholds too: all of it counts in the release id."""
    tensors = {f"teacher.{name}": tensor for name, tensor in teacher.state_dict().items()}
    tensors |= {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    for name in ("stage_weights", "image_threshold", "pixel_threshold"):
        tensors[f"calibration.{name}"] = torch.tensor(getattr(calibration, name), dtype=torch.float64)
    if calibration.foreground != "none":  # checkpoints from before it could be had keep their release ids
        code = FOREGROUND_CODES[calibration.foreground]
        tensors["calibration.foreground"] = torch.tensor([code, calibration.foreground_id], dtype=torch.int64)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _calibration(tensors: Mapping[str, Tensor], header: Header, path: Path) -> Calibration:
    first, second, third = tensors["calibration.stage_weights"].tolist()
    foreground, foreground_id = header.config.foreground, 0
    if foreground != "none":
        code, foreground_id = tensors["calibration.foreground"].tolist()
        if code != FOREGROUND_CODES[foreground]:
            raise CheckpointError(
                f"{path} was configured with foreground {foreground!r} and calibrated with another; train again."
            )
    return Calibration(
        release_id=release_id(tensors),
        category=header.provenance.category,
        image_size=header.config.image_size,
        smoothing_sigma=header.config.smoothing_sigma,
        pool_size=header.config.pool_size,
        stage_weights=(first, second, third),
        image_threshold=tensors["calibration.image_threshold"].item(),
        pixel_threshold=tensors["calibration.pixel_threshold"].item(),
        foreground=foreground,
        foreground_id=foreground_id,
    )


_UNSET_CALIBRATION = Calibration(
    release_id=0,
    category="",
    image_size=0,
    smoothing_sigma=0,
    pool_size=1,
    stage_weights=(0, 0, 0),
    image_threshold=0,
    pixel_threshold=0,
)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
