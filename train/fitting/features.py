"""The teacher's features, computed once, and the batches of them: it never changes, and training uses no augmentation.

Here they are in the machine's memory or in a file; what a GPU trains on is in `gpu.stores`.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_repository.image_size import ImageSize, stage_shape
from train.config import FitConfig
from train.errors import StorageError, TrainingError
from train.method.backbones import STRIDES, Backbone
from train.support.arrays import FloatArray
from train.support.memory import available_memory
from train.support.progress import console, progress_bar

BATCH_SIZE = 16
MEMORY_SHARE = 0.5  # of the memory that is free when training starts
ZEROS = bytes(1 << 20)


@dataclass(frozen=True)
class Batch:
    """Some training images and what the teacher sees in them.

    Attributes:
        indices: [B] positions among the training images.
        image: [B, H, W, 3] uint8.
        teacher_features: [B, C, h, w] float32 a stage, channels_last.
    """

    indices: NDArray[np.intp]
    image: Tensor
    teacher_features: list[Tensor]


class Features(Protocol):
    """The teacher's features of N images, wherever they are kept."""

    @property
    def stages(self) -> Sequence[FloatArray]:
        """[N, h, w, C] float32 a stage; of an array that is not in this machine's memory, slices can be read."""

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """The features of some images, [B, C, h, w] a stage, in channels_last layout."""

    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """One batch after the other, of positions among the images [N, H, W, 3]; each is valid until the next."""

    def means(self) -> list[Tensor]:
        """Mean over images and positions, [C] float32 a stage."""

    def stds(self) -> list[Tensor]:
        """Standard deviation over images and positions, [C] float32 a stage."""


@dataclass(frozen=True)
class TeacherFeatures:
    """Feature maps of N images, one array [N, h, w, C] float32 a stage, in memory or mapped from a file."""

    stages: tuple[FloatArray, ...]

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """The features of some images, [B, C, h, w] a stage, in channels_last layout."""
        return [
            to_device(torch.from_numpy(stage[indices]), device).permute(0, 3, 1, 2) for stage in self.stages
        ]

    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """One batch after the other, of positions among the images [N, H, W, 3]."""
        for indices in order:
            image = to_device(torch.from_numpy(images[indices]), device)
            yield Batch(indices, image, self.batch(indices, device))

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


@dataclass(frozen=True)
class GoodImages:
    """Good images in memory and the teacher's features of them.

    Attributes:
        images: [N, H, W, 3] uint8.
        teacher_features: of the same images, in the same order.
        file_names: for messages.
    """

    images: NDArray[np.uint8]
    teacher_features: Features
    file_names: list[str]

    def __len__(self) -> int:
        return len(self.images)


def load_batches(
    good: GoodImages, *, config: FitConfig, steps: range, device: torch.device
) -> Iterator[Batch]:
    """The batches of these steps; which images a step sees depends on its number and the seed alone.

    A batch is valid until the next one is asked for.
    """
    order = batch_indices(
        len(good), batch_size=config.batch_size, seed=config.seed, drop_last=config.drop_last
    )
    # One after the other: a list of all would fill the memory when millions of steps are asked for.
    asked = itertools.islice(order, steps.start, steps.stop)
    return good.teacher_features.batches(asked, good.images, device)


def batch_indices(
    n_images: int, *, batch_size: int, seed: int, drop_last: bool = True
) -> Iterator[NDArray[np.intp]]:
    """Endless batches of positions, each epoch in a new order; its smaller rest is its last batch, or is left out."""
    end = n_images - batch_size + 1 if drop_last else n_images
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(n_images)
        for start in range(0, end, batch_size):
            yield order[start : start + batch_size]


def compute_teacher_features(
    teacher: Backbone, images: NDArray[np.uint8], *, scratch_dir: Path, device: torch.device
) -> TeacherFeatures:
    """Run the teacher, in evaluation mode, over all images [N, H, W, 3] uint8.

    Features that do not fit in memory are kept in a file without a name under `scratch_dir`, which vanishes with the
    process.

    Raises:
        StorageError: they fit neither in memory nor on the disk of `scratch_dir`.
        TrainingError: a feature is not finite.
    """
    n_images = len(images)
    shapes = feature_shapes(teacher, n_images=n_images, image_size=images.shape[1:3])
    stages = _allocate(shapes, scratch_dir)
    with torch.inference_mode(), progress_bar("Teacher features", n_images) as bar:
        for start, stop in slices_of(n_images):
            batch = torch.from_numpy(images[start:stop]).to(device)
            for stage, feature in zip(stages, teacher(batch), strict=True):
                values = feature.permute(0, 2, 3, 1).cpu().numpy()
                require_finite_features(bool(np.isfinite(values).all()), start, stop, n_images=n_images)
                stage[start:stop] = values
            bar.advance(stop - start)
    return TeacherFeatures(stages)


def slices_of(n_images: int) -> list[tuple[int, int]]:
    """Where the batches begin and end in which the teacher runs over so many images."""
    return [(start, min(start + BATCH_SIZE, n_images)) for start in range(0, n_images, BATCH_SIZE)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; to a GPU through pinned memory, so that no one waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def feature_shapes(
    teacher: Backbone, *, n_images: int, image_size: ImageSize
) -> list[tuple[int, int, int, int]]:
    """[N, h, w, C] of each stage's features."""
    return [
        (n_images, *stage_shape(image_size, stride), channels)
        for stride, channels in zip(STRIDES, teacher.channels, strict=True)
    ]


def require_finite_features(finite: bool, start: int, stop: int, *, n_images: int) -> None:
    """Refuse features of the images from `start` to before `stop` that are not finite.

    Raises:
        TrainingError: they are not.
    """
    if not finite:
        raise TrainingError(
            f"The teacher's features of images {start + 1} to {stop} of {n_images} are not finite; its weights are "
            "damaged or too large: choose another --teacher or other weights."
        )


def _allocate(shapes: Sequence[tuple[int, ...]], scratch_dir: Path) -> tuple[FloatArray, ...]:
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes)
    if n_bytes <= MEMORY_SHARE * available_memory():
        return tuple(np.empty(shape, np.float32) for shape in shapes)
    console.print(f"Teacher features take {gib(n_bytes)}: kept in a file under {scratch_dir}.", markup=False)
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
            f"Teacher features need {gib(n_bytes)} in a file under {scratch_dir}, where {_free(scratch_dir)} free "
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


def gib(n_bytes: int) -> str:
    """Bytes in GiB, for messages."""
    return f"{n_bytes / 2**30:,.1f} GiB"


def _free(folder: Path) -> str:
    try:
        return f"{gib(shutil.disk_usage(folder).free)} are"
    except OSError:
        return "nothing is"
