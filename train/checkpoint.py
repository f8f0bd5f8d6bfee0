"""A checkpoint: all tensors that judge, and how they came to be, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from model_repository.distance_fusion.map_fusion import Calibration
from train.backbones import Backbone
from train.config import FitConfig
from train.errors import CheckpointError
from train.files import replacing
from train.model import Student, build_student
from train.provenance import Provenance

FORMAT = "astmfr-1"
FOREGROUND_CODES = {"none": 0, "threshold": 1, "sam": 2}  # as a tensor says it
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Header:
    """What a checkpoint's header tells without reading its tensors."""

    config: FitConfig
    provenance: Provenance


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
    """The first 63 bits of a SHA-256 over names, types, shapes and bytes of all tensors; never 0."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1 or 1


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


def read_header(path: Path) -> Header:
    """Read a checkpoint's configuration and history, and check that the file is whole.

    Raises:
        CheckpointError: missing, truncated, another kind of file, or another version's.
    """
    metadata = _read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file of format {metadata.get('format', 'unknown')!r}; expected {FORMAT!r}, "
            "written by `python -m train fit`; remove it and train again."
        )
    try:
        return Header(
            config=FitConfig.model_validate_json(metadata["config"]),
            provenance=Provenance.model_validate_json(metadata["provenance"]),
        )
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{path} has an unreadable header ({str(error).splitlines()[0]}); remove it and train again."
        ) from None


def read_release_id(path: Path) -> int:
    """The release id of a checkpoint file, without building its networks.

    Raises:
        CheckpointError: see `read_header`.
    """
    read_header(path)
    return release_id(load_file(path))


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


def _read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes of header length, a JSON header, then the tensors."""
    if not path.is_file():
        raise CheckpointError(f"Checkpoint {path} does not exist; make it with `python -m train fit`.")
    foreign = CheckpointError(
        f"{path} is no safetensors file; expected a checkpoint of `python -m train fit`; move it away."
    )
    size = path.stat().st_size
    with path.open("rb") as file:
        length_bytes = file.read(8)
        if len(length_bytes) < 8:
            raise CheckpointError(
                f"Checkpoint {path} is truncated ({size} bytes); remove it and train again, or restore it."
            )
        (length,) = struct.unpack("<Q", length_bytes)
        if length > MAX_HEADER_BYTES:
            raise foreign
        text = file.read(length)
    if len(text) < length and text.startswith(b"{"):
        raise CheckpointError(
            f"Checkpoint {path} is truncated in its header; remove it and train again, or restore it."
        )
    try:
        header: dict[str, Any] = json.loads(text)
        metadata: dict[str, str] = header.pop("__metadata__", {})
        expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise foreign from None
    if size != expected:
        fault = "truncated" if size < expected else "longer than its header says"
        raise CheckpointError(
            f"Checkpoint {path} is {fault} ({size:,} of {expected:,} bytes); remove it and train again, or restore it."
        )
    return metadata
