"""A checkpoint's configuration, history and release id, read without building its networks.

It loads no torch, which takes seconds: a command that finds a checkpoint up to date has nothing else to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import load_file

from model_repository.distance_fusion.map_fusion import Calibration, fusion_code_id, release_id_of
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.data.regions import map_regions
from train.errors import CheckpointError
from train.support.arrays import names_of_not_finite

FORMAT = "astmfr-1"
FOREGROUND_CODES = {"none": 0, "threshold": 1, "sam": 2}  # how a tensor names the method
FOREGROUND_TENSOR = "calibration.foreground"
PICTURE_ONLY_TENSOR = "calibration.picture_only"  # uint8, where it is so
REFERENCE_TENSOR = "alignment.reference"  # [H, W] uint8
CORRELATION_TENSOR = "alignment.least_correlation"  # float64
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Header:
    """What stands before the tensors in a checkpoint."""

    config: FitConfig
    provenance: Provenance


def tensors_id_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    """The first 63 bits of a SHA-256 over names, types, shapes and bytes of all tensors; never 0."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1 or 1


def weights_id_of(arrays: Mapping[str, NDArray[Any]], config: FitConfig, category: str) -> int:
    """An id of a student's graph, of the category that it judges and of how the background is removed; never 0.

    A server finds a calibration by it alone, so that of two that are served at once each needs an id of its own:
    thresholds are of one category, and hold with the background or without it. Thresholds, smoothing and stage weights
    themselves do not count.
    """
    shaping = {
        name: array
        for name, array in arrays.items()
        if not name.startswith("calibration.") or name == FOREGROUND_TENSOR
    }
    shaping["config.image_size"] = np.array(config.image_size, np.int64)  # one number, or two
    shaping["config.distance_scale"] = np.array(config.distance_scale, np.float64)
    shaping["provenance.category"] = np.frombuffer(category.encode(), np.uint8)
    return tensors_id_of(shaping)


def calibration_of(arrays: Mapping[str, NDArray[Any]], header: Header, path: Path) -> Calibration:
    """The calibration that a checkpoint's tensors and configuration hold, with both of its ids.

    Raises:
        CheckpointError: a tensor is missing, or a value cannot be judged with.
    """
    config, foreground_id = header.config, 0
    try:
        first, second, third = arrays["calibration.stage_weights"].tolist()
        image_threshold = arrays["calibration.image_threshold"].item()
        pixel_threshold = arrays["calibration.pixel_threshold"].item()
        if config.foreground != "none":
            code, foreground_id = arrays[FOREGROUND_TENSOR].tolist()
            if code != FOREGROUND_CODES[config.foreground]:
                raise CheckpointError(
                    f"{path} was configured with foreground {config.foreground!r} and calibrated with another; train "
                    "again."
                )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not fit its configuration ({error}); remove it and train again."
        ) from None
    try:
        calibration = Calibration(
            release_id=0,
            category=header.provenance.category,
            image_size=config.image_size,
            smoothing_sigma=config.smoothing_sigma,
            pool_size=config.pool_size,
            stage_weights=(first, second, third),
            image_threshold=image_threshold,
            pixel_threshold=pixel_threshold,
            foreground=config.foreground,
            foreground_id=foreground_id,
            score_share=config.score_share,
            score_pixels=config.score_pixels,
            weights_id=weights_id_of(arrays, config, header.provenance.category),
            regions=map_regions(config, keep_aspect=header.provenance.keep_aspect),
            picture_only=PICTURE_ONLY_TENSOR in arrays,
        )
    except ValueError as error:
        raise CheckpointError(f"{path} cannot judge: {error}; train again.") from None
    return with_release_id(calibration)


def with_release_id(calibration: Calibration) -> Calibration:
    """A calibration with the id of the release that it makes with its weights and today's fusion code."""
    return replace(calibration, release_id=release_id_of(calibration, fusion_code_id()))


def read_header(path: Path) -> Header:
    """Read a checkpoint's configuration and history, and check that the file is whole.

    Raises:
        CheckpointError: missing, unreadable, truncated, another kind of file, or another version's.
    """
    try:
        metadata = _read_metadata(path)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path} cannot be read ({error.strerror or error}); mend its permissions or restore it."
        ) from None
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
    """The id of a checkpoint's weights and calibration with today's fusion code, without building its networks.

    Raises:
        CheckpointError: see `read_header`; or a tensor is not finite, or its calibration cannot be judged with.
    """
    header = read_header(path)
    arrays = load_file(path)
    require_finite(path, arrays)
    return calibration_of(arrays, header, path).release_id


def require_finite(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Make sure that no tensor of a checkpoint holds NaN or an infinity: a part judged with it would pass.

    Raises:
        CheckpointError: a tensor is not finite.
    """
    wrong = names_of_not_finite(arrays)
    if wrong:
        raise CheckpointError(
            f"{path} cannot be judged with: {len(wrong)} of its {len(arrays)} tensors are not finite, {wrong[0]} among "
            "them; remove it and train again, with a lower --learning-rate."
        )


def _read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes of header length, a JSON header, then the tensors."""
    if not os.path.lexists(path):
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
