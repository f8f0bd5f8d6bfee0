"""The teacher's features, computed once: it never changes, and training uses no augmentation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.method.backbones import STRIDES, Backbone
from train.support.arrays import FloatArray
from train.support.progress import console, progress_bar

BATCH_SIZE = 16
MEMORY_SHARE = 0.5  # of the memory that is free when training starts


@dataclass(frozen=True)
class TeacherFeatures:
    """Feature maps of N images, one array [N, h, w, C] float32 a stage, in memory or mapped from a file."""

    stages: tuple[FloatArray, ...]

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """The features of some images, [B, C, h, w] a stage, in channels_last layout."""
        return [torch.from_numpy(stage[indices]).to(device).permute(0, 3, 1, 2) for stage in self.stages]

    def means(self) -> list[Tensor]:
        """Mean over images and positions, [C] float32 a stage."""
        return [
            torch.from_numpy(stage.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32))
            for stage in self.stages
        ]


def compute_teacher_features(
    teacher: Backbone, images: NDArray[np.uint8], *, scratch_dir: Path, device: torch.device
) -> TeacherFeatures:
    """Run the teacher, in evaluation mode, over all images [N, S, S, 3] uint8.

    Features that do not fit in memory are kept in a file without a name under `scratch_dir`, which vanishes with the
    process.
    """
    n_images, size = len(images), images.shape[1]
    shapes = [
        (n_images, size // stride, size // stride, channels)
        for stride, channels in zip(STRIDES, teacher.channels, strict=True)
    ]
    stages = _allocate(shapes, scratch_dir)
    with torch.inference_mode(), progress_bar("Teacher features", n_images) as bar:
        for start in range(0, n_images, BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + BATCH_SIZE]).to(device)
            for stage, feature in zip(stages, teacher(batch), strict=True):
                stage[start : start + BATCH_SIZE] = feature.permute(0, 2, 3, 1).cpu().numpy()
            bar.advance(len(batch))
    return TeacherFeatures(stages)


def _allocate(shapes: Sequence[tuple[int, ...]], scratch_dir: Path) -> tuple[FloatArray, ...]:
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes)
    if n_bytes <= MEMORY_SHARE * psutil.virtual_memory().available:
        return tuple(np.empty(shape, np.float32) for shape in shapes)
    console.print(f"Teacher features take {n_bytes / 2**30:.1f} GiB: kept in a file under {scratch_dir}.")
    arrays = []
    for shape in shapes:
        with tempfile.TemporaryFile(dir=scratch_dir) as file:
            arrays.append(np.memmap(file, np.float32, mode="w+", shape=shape))
    return tuple(arrays)
