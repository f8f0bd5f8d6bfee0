"""Batches for the training loop: images and their teacher features, in an order that the seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.config import FitConfig
from train.fitting.features import TeacherFeatures

Fetched = tuple[NDArray[np.intp], Tensor, list[Tensor]]  # indices, image, features [B, h, w, C]

GPU_LOADER_WORKERS = 2  # processes that fetch ahead; on a CPU they would only take its cores


@dataclass(frozen=True)
class Batch:
    """Some training images and what the teacher sees in them.

    Attributes:
        indices: [B] positions among the training images.
        image: [B, S, S, 3] uint8.
        teacher_features: [B, C, h, w] float32 a stage, channels_last.
    """

    indices: NDArray[np.intp]
    image: Tensor
    teacher_features: list[Tensor]


class GoodImages(Dataset[Fetched]):
    """Good images in memory and the teacher's features of them; gives whole batches at once.

    Args:
        images: [N, S, S, 3] uint8.
        teacher_features: of the same images, in the same order.
        file_names: for messages.
    """

    def __init__(
        self, images: NDArray[np.uint8], teacher_features: TeacherFeatures, file_names: Sequence[str]
    ) -> None:
        self.images = images
        self.teacher_features = teacher_features
        self.file_names = file_names

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Fetched:
        """The batch at these positions; features stay [B, h, w, C] until they are on the device."""
        positions = np.asarray(indices, np.intp)
        features = [torch.from_numpy(stage[positions]) for stage in self.teacher_features.stages]
        return positions, torch.from_numpy(self.images[positions]), features


def load_batches(
    good: GoodImages, *, config: FitConfig, steps: range, device: torch.device
) -> Iterator[Batch]:
    """The batches of these steps; which images a step sees depends on its number and the seed alone.

    On a GPU they are fetched ahead into pinned memory and copied while the GPU works.
    """
    on_gpu = device.type == "cuda"
    order = batch_indices(
        len(good), batch_size=config.batch_size, seed=config.seed, drop_last=config.drop_last
    )
    loader: DataLoader[Fetched] = DataLoader(
        good,
        # One after the other: a list of all would fill the memory when millions of steps are asked for.
        batch_sampler=(batch.tolist() for batch in itertools.islice(order, steps.start, steps.stop)),
        collate_fn=_as_it_is,
        num_workers=GPU_LOADER_WORKERS if on_gpu else 0,
        pin_memory=on_gpu,
    )
    for indices, image, features in loader:
        yield Batch(
            indices=np.asarray(indices),
            image=image.to(device, non_blocking=True),
            teacher_features=[stage.to(device, non_blocking=True).permute(0, 3, 1, 2) for stage in features],
        )


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


def _as_it_is(fetched: Any) -> Any:
    """`__getitems__` gives whole batches: there is nothing to collate."""
    return fetched
