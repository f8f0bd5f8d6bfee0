"""Batches for the training loop: images and their teacher features, in an order that the seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from train.config import FitConfig
from train.fitting.features import Batch, Features


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
