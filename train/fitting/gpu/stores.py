"""Images and teacher features for training on a GPU: on it, in pinned memory, or computed again at each step.

Nothing here asks for a GPU: on a CPU the same code runs, which is how it is tested.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.fitting.features import Batch, feature_shapes, require_finite_features, slices_of, to_device
from train.method.backbones import Backbone
from train.support.arrays import FloatArray
from train.support.progress import progress_bar


class GpuFeatures(ABC):
    """The teacher's features of N images, read in slices by whatever comes after the training.

    Args:
        teacher: on the device, in evaluation mode.
        images: [N, H, W, 3] uint8.
        device: where the training is.

    Raises:
        TrainingError: a feature is not finite.
    """

    def __init__(self, teacher: Backbone, images: NDArray[np.uint8], device: torch.device) -> None:
        self.teacher = teacher
        self.images = images
        self.device = device
        self.shapes = feature_shapes(teacher, n_images=len(images), image_size=images.shape[1:3])
        self.allocate()
        self._means = self._compute()

    @property
    def stages(self) -> tuple[Any, ...]:
        """What reads like an array [N, h, w, C] float32 a stage, slice by slice."""
        return tuple(StageSlices(self, index) for index in range(len(self.shapes)))

    @abstractmethod
    def allocate(self) -> None:
        """Take the memory that images and features of these shapes are kept in."""

    @abstractmethod
    def keep(self, start: int, features: list[Tensor]) -> None:
        """Take the features [B, h, w, C] of the images from `start` on."""

    @abstractmethod
    def read(self, start: int, stop: int) -> list[Tensor]:
        """The features of some images in a row, [B, h, w, C] a stage, on the device."""

    @abstractmethod
    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """See `train.fitting.features.Features`."""

    @abstractmethod
    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """See `train.fitting.features.Features`."""

    def means(self) -> list[Tensor]:
        """Mean over images and positions, [C] float32 a stage."""
        return self._means

    def stds(self) -> list[Tensor]:
        """Standard deviation over images and positions, [C] float32 a stage."""
        means = [mean.to(self.device, torch.float64) for mean in self._means]
        sums = [torch.zeros_like(mean) for mean in means]
        for start, stop in slices_of(len(self.images)):
            for total, mean, stage in zip(sums, means, self.read(start, stop), strict=True):
                total += (stage.double() - mean).square().sum(dim=(0, 1, 2))
        return [total.div(n).sqrt().float().cpu() for total, n in zip(sums, self._n_vectors(), strict=True)]

    @torch.no_grad()
    def run_teacher(self, image: Tensor) -> list[Tensor]:
        """The teacher's features of images [B, H, W, 3] on the device, [B, h, w, C] a stage."""
        return [feature.permute(0, 2, 3, 1) for feature in self.teacher(image)]

    def _compute(self) -> list[Tensor]:
        """Run the teacher over all images; the means that come of it tell, at the end, whether all was finite."""
        sums, slices = [], slices_of(len(self.images))
        with progress_bar("Teacher features", len(self.images)) as bar:
            for start, stop in slices:
                features = self.run_teacher(to_device(torch.from_numpy(self.images[start:stop]), self.device))
                self.keep(start, features)
                sums.append([stage.sum(dim=(0, 1, 2), dtype=torch.float64) for stage in features])
                bar.advance(stop - start)
        finite = torch.stack([torch.cat(of_slice).isfinite().all() for of_slice in sums]).tolist()
        for (start, stop), of_slice in zip(slices, finite, strict=True):
            require_finite_features(of_slice, start, stop, n_images=len(self.images))
        totals = [torch.stack(stage).sum(dim=0) for stage in zip(*sums, strict=True)]
        return [(total / n).float().cpu() for total, n in zip(totals, self._n_vectors(), strict=True)]

    def _n_vectors(self) -> list[int]:
        return [n * height * width for n, height, width, _ in self.shapes]


class StageSlices:
    """One stage of `GpuFeatures` as an array of which slices of images are read."""

    def __init__(self, features: GpuFeatures, stage: int) -> None:
        self._features, self._stage = features, stage
        self.shape = features.shapes[stage]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, images: slice) -> FloatArray:
        """[B, h, w, C] float32 of some images in a row, in the machine's memory."""
        start, stop, _ = images.indices(len(self))
        parts = [
            self._features.read(start + first, start + last)[self._stage].cpu().numpy()
            for first, last in slices_of(stop - start)
        ]
        return np.concatenate(parts)


class DeviceFeatures(GpuFeatures):
    """Images and features on the device, where batches are picked out of them."""

    def allocate(self) -> None:
        """See `GpuFeatures`."""
        self._stages = [torch.empty(shape, device=self.device) for shape in self.shapes]
        self._pixels = torch.from_numpy(self.images).to(self.device)

    def keep(self, start: int, features: list[Tensor]) -> None:
        """See `GpuFeatures`."""
        for kept, stage in zip(self._stages, features, strict=True):
            kept[start : start + len(stage)] = stage

    def read(self, start: int, stop: int) -> list[Tensor]:
        """See `GpuFeatures`."""
        return [stage[start:stop] for stage in self._stages]

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """See `train.fitting.features.Features`."""
        return self._pick(to_device(torch.from_numpy(indices), device))

    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """See `train.fitting.features.Features`; `images` are those that are on the device."""
        for indices in order:
            positions = to_device(torch.from_numpy(indices), device)
            yield Batch(indices, self._pixels.index_select(0, positions), self._pick(positions))

    def _pick(self, positions: Tensor) -> list[Tensor]:
        return [stage.index_select(0, positions).permute(0, 3, 1, 2) for stage in self._stages]


class PinnedFeatures(GpuFeatures):
    """Images and features in memory that a GPU reads by itself, one batch ahead, while it computes."""

    def allocate(self) -> None:
        """See `GpuFeatures`."""
        on_gpu = self.device.type == "cuda"
        self._stages = [torch.empty(shape, pin_memory=on_gpu) for shape in self.shapes]
        self._pixels = torch.empty(self.images.shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._pixels.copy_(torch.from_numpy(self.images))

    def keep(self, start: int, features: list[Tensor]) -> None:
        """See `GpuFeatures`."""
        for kept, stage in zip(self._stages, features, strict=True):
            kept[start : start + len(stage)] = stage.cpu()

    def read(self, start: int, stop: int) -> list[Tensor]:
        """See `GpuFeatures`."""
        return [stage[start:stop].to(self.device) for stage in self._stages]

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """See `train.fitting.features.Features`."""
        picked = [stage[torch.from_numpy(indices)] for stage in self._stages]
        return [to_device(stage, device).permute(0, 3, 1, 2) for stage in picked]

    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """See `train.fitting.features.Features`; `images` are those that are in pinned memory.

        While a batch is trained on, the next one is copied into the other of two buffers. It waits for the step before,
        which was the last to read that buffer.
        """
        copying = None
        if device.type == "cuda":
            copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        buffers: list[list[Tensor]] = [[], []]
        ahead: Batch | None = None
        for number, indices in enumerate(order):
            if copying is not None:
                torch.cuda.current_stream(device).wait_stream(
                    copying
                )  # the batch that was copied ahead is there
                copying.wait_stream(torch.cuda.current_stream(device))  # its buffer's last reader is done
            with torch.cuda.stream(copying) if copying is not None else contextlib.nullcontext():
                following = self._copy(indices, buffers[number % 2], device)
            if ahead is not None:
                yield ahead
            ahead = following
        if ahead is not None:
            if copying is not None:
                torch.cuda.current_stream(device).wait_stream(copying)
            yield ahead

    def _copy(self, indices: NDArray[np.intp], buffer: list[Tensor], device: torch.device) -> Batch:
        """Copy a batch image by image: no processor has to gather it first."""
        sources = [self._pixels, *self._stages]
        if not buffer or len(buffer[0]) < len(indices):
            buffer[:] = [
                torch.empty((len(indices), *source.shape[1:]), dtype=source.dtype, device=device)
                for source in sources
            ]
        for source, target in zip(sources, buffer, strict=True):
            for place, index in enumerate(indices.tolist()):
                target[place].copy_(source[index], non_blocking=True)
        image, *stages = (target[: len(indices)] for target in buffer)
        return Batch(indices, image, [stage.permute(0, 3, 1, 2) for stage in stages])


class RecomputedFeatures(GpuFeatures):
    """Features that are kept nowhere: the teacher runs whenever they are asked for."""

    def allocate(self) -> None:
        """Nothing is kept but the features that were read last."""
        self._last: tuple[tuple[int, int], list[Tensor]] | None = None

    def keep(self, start: int, features: list[Tensor]) -> None:
        """Keep nothing."""

    def read(self, start: int, stop: int) -> list[Tensor]:
        """See `GpuFeatures`; the last slice is kept, for who reads it stage by stage."""
        if self._last is None or self._last[0] != (start, stop):
            image = to_device(torch.from_numpy(self.images[start:stop]), self.device)
            self._last = (start, stop), self.run_teacher(image)
        return self._last[1]

    def batch(self, indices: NDArray[np.intp], device: torch.device) -> list[Tensor]:
        """See `train.fitting.features.Features`."""
        features = self.run_teacher(to_device(torch.from_numpy(self.images[indices]), device))
        return [stage.permute(0, 3, 1, 2) for stage in features]

    def batches(
        self, order: Iterable[NDArray[np.intp]], images: NDArray[np.uint8], device: torch.device
    ) -> Iterator[Batch]:
        """See `train.fitting.features.Features`."""
        for indices in order:
            image = to_device(torch.from_numpy(images[indices]), device)
            features = [stage.permute(0, 3, 1, 2) for stage in self.run_teacher(image)]
            yield Batch(indices, image, features)
