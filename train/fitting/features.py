"""The teacher's features, computed once: it never changes, and training uses no augmentation."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.errors import StorageError, TrainingError
from train.method.backbones import STRIDES, Backbone
from train.support.arrays import FloatArray
from train.support.progress import console, progress_bar

BATCH_SIZE = 16
MEMORY_SHARE = 0.5  # of the memory that is free when training starts
ZEROS = bytes(1 << 20)


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

    def stds(self) -> list[Tensor]:
        """Standard deviation over images and positions, [C] float32 a stage."""
        stds = []
        for stage, mean in zip(self.stages, self.means(), strict=True):
            # Image by image: a double of all features may not fit in memory.
            variances = [
                np.square(image - mean.numpy(), dtype=np.float64).mean(axis=(0, 1)) for image in stage
            ]
            stds.append(torch.from_numpy(np.sqrt(np.mean(variances, axis=0)).astype(np.float32)))
        return stds


def compute_teacher_features(
    teacher: Backbone, images: NDArray[np.uint8], *, scratch_dir: Path, device: torch.device
) -> TeacherFeatures:
    """Run the teacher, in evaluation mode, over all images [N, S, S, 3] uint8.

    Features that do not fit in memory are kept in a file without a name under `scratch_dir`, which vanishes with the
    process.

    Raises:
        StorageError: they fit neither in memory nor on the disk of `scratch_dir`.
        TrainingError: a feature is not finite.
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
                values = feature.permute(0, 2, 3, 1).cpu().numpy()
                if not np.isfinite(values).all():
                    raise TrainingError(
                        f"The teacher's features of images {start + 1} to {start + len(values)} of {n_images} are not "
                        "finite; its weights are damaged or too large: choose another --teacher or other weights."
                    )
                stage[start : start + BATCH_SIZE] = values
            bar.advance(len(batch))
    return TeacherFeatures(stages)


def _allocate(shapes: Sequence[tuple[int, ...]], scratch_dir: Path) -> tuple[FloatArray, ...]:
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes)
    if n_bytes <= MEMORY_SHARE * psutil.virtual_memory().available:
        return tuple(np.empty(shape, np.float32) for shape in shapes)
    console.print(f"Teacher features take {_gib(n_bytes)}: kept in a file under {scratch_dir}.", markup=False)
    return tuple(_array_in_file(shape, scratch_dir, n_bytes=n_bytes) for shape in shapes)


def _array_in_file(shape: tuple[int, ...], scratch_dir: Path, *, n_bytes: int) -> FloatArray:
    """An array in a file without a name, whose place on the disk is taken: written later, it cannot find it full.

    Raises:
        StorageError: the place is not there; `n_bytes` is what all arrays take.
    """
    size = 4 * int(np.prod(shape))
    try:
        if shutil.disk_usage(scratch_dir).free < size:  # at once, not after the disk has been filled
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=scratch_dir) as file:
            _reserve(file, size)
            return np.memmap(file, np.float32, mode="r+", shape=shape)
    except OSError as error:
        raise StorageError(
            f"Teacher features need {_gib(n_bytes)} in a file under {scratch_dir}, where {_free(scratch_dir)} free "
            f"({error.strerror or error}); make room, train with --runs-dir on another disk, or with fewer images or a "
            "smaller --image-size."
        ) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Have the file system set `size` bytes aside: a place that is missing is an error now, and no Bus error later."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        # Not on every system, and not on every file system: there zeros are written.
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        file.seek(0)
        for start in range(0, size, len(ZEROS)):
            file.write(ZEROS[: size - start])
        file.flush()


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"


def _free(folder: Path) -> str:
    try:
        return f"{_gib(shutil.disk_usage(folder).free)} are"
    except OSError:
        return "nothing is"
