"""PaDiM (Defard et al. 2021): a Gaussian at each position over a pretrained network's features.

A peer to compare with, on the features of the method's own teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.support.arrays import FloatArray

N_CHANNELS = 100  # drawn at random out of all stages' channels; the paper's choice
REGULARISATION = 0.01  # added to each covariance's diagonal, so that it can be inverted
POSITIONS_AT_ONCE = 256  # computed together, in double precision: bounds the memory


@dataclass(frozen=True)
class Padim:
    """A Gaussian at each of P = h * w positions of stage 1's grid, over D channels.

    Attributes:
        channels: [D] positions among all stages' channels, sorted.
        mean: [P, D] float32.
        whitening: [P, D, D] float32, inverse Cholesky factor of the covariance: the Mahalanobis distance is
            the length of `whitening @ (x - mean)`.
    """

    channels: NDArray[np.intp]
    mean: Tensor
    whitening: Tensor


def fit_padim(stages: Sequence[FloatArray], *, seed: int, device: torch.device) -> Padim:
    """Fit mean and covariance at each position on N good images' features, [N, h, w, C] a stage.

    The seed draws the channels.
    """
    n_channels = sum(stage.shape[-1] for stage in stages)
    drawn = np.random.default_rng(seed).permutation(n_channels)[:N_CHANNELS]
    channels = np.sort(drawn)
    vectors = embed(stages, channels)  # [N, P, D]
    fitted = [
        fit_gaussians(chunk.to(device).double())
        for chunk in torch.split(vectors.transpose(0, 1), POSITIONS_AT_ONCE)  # [P', N, D] each
    ]
    return Padim(
        channels=channels,
        mean=torch.cat([mean.float() for mean, _ in fitted]),
        whitening=torch.cat([whitening.float() for _, whitening in fitted]),
    )


def padim_maps(model: Padim, stages: Sequence[FloatArray]) -> FloatArray:
    """Mahalanobis distance of each position to its Gaussian, [N, h_1, w_1] float32 on stage 1's grid."""
    n_images, height, width, _ = stages[0].shape
    vectors = embed(stages, model.channels).transpose(0, 1)  # [P, N, D]
    distances = [
        mahalanobis(chunk.to(mean), mean=mean, whitening=whitening)
        for chunk, mean, whitening in zip(
            torch.split(vectors, POSITIONS_AT_ONCE),
            torch.split(model.mean, POSITIONS_AT_ONCE),
            torch.split(model.whitening, POSITIONS_AT_ONCE),
            strict=True,
        )
    ]
    maps: FloatArray = torch.cat(distances).T.reshape(n_images, height, width).cpu().numpy()
    return maps


def fit_gaussians(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [P, D] and whitening [P, D, D] of N vectors at each of P positions, [P, N, D]."""
    mean = vectors.mean(dim=1)
    centred = vectors - mean[:, None]
    covariance = centred.mT @ centred / max(1, vectors.shape[1] - 1)
    unit = torch.eye(vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
    lower = torch.linalg.cholesky(covariance + REGULARISATION * unit)
    return mean, torch.linalg.solve_triangular(lower, unit.expand_as(lower), upper=False)


def mahalanobis(vectors: Tensor, *, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distance [P, N] of vectors [P, N, D] to the Gaussian of their position."""
    distance: Tensor = ((vectors - mean[:, None]) @ whitening.mT).norm(dim=-1)
    return distance


def embed(stages: Sequence[FloatArray], channels: NDArray[np.intp]) -> Tensor:
    """All stages' features on stage 1's grid, some channels of them: [N, P, D] float32.

    A finer position takes the features of the coarser one it lies in, as in the paper.
    """
    n_images, side = stages[0].shape[:2]
    parts, first = [], 0
    for stage in stages:
        last = first + stage.shape[-1]
        chosen = stage[..., channels[(channels >= first) & (channels < last)] - first]
        repeats = side // stage.shape[1]
        parts.append(chosen.repeat(repeats, axis=1).repeat(repeats, axis=2))
        first = last
    return torch.from_numpy(np.concatenate(parts, axis=-1)).reshape(n_images, side * side, -1)
