"""PatchCore (Roth et al. 2022): distance to the nearest good patch of a memory bank.

A peer to compare with, on the features of the method's own teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.random_projection import GaussianRandomProjection
from torch import Tensor
from torch.nn import functional as F

from train.support.arrays import FloatArray
from train.support.progress import progress_bar

CORESET_RATIO = 0.01
PROJECTED_CHANNELS = 128  # in which the coreset is searched (Johnson and Lindenstrauss)
N_NEIGHBOURS = 9  # b of Eq. 7
IMAGES_AT_ONCE = 16


def fit_patchcore(
    stages: Sequence[FloatArray],
    *,
    seed: int,
    device: torch.device,
    coreset_ratio: float = CORESET_RATIO,
) -> Tensor:
    """Choose the memory bank [M, C] among the patches of N good images' features, [N, h, w, C] a stage.

    Every good patch lies near one of the bank. The seed draws the projection and the first patch; `coreset_ratio` is
    the share of the patches to keep, 0 to 1.
    """
    patches = local_patches(stages).flatten(0, 2)  # [N * h * w, C]
    n_selected = min(len(patches), max(N_NEIGHBOURS, round(coreset_ratio * len(patches))))
    points = project(patches, seed=seed).to(device)
    selected = greedy_coreset(points, n_selected=n_selected, seed=seed)
    return patches[selected].to(device)


def patchcore_maps(bank: Tensor, stages: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Distance of each patch to the nearest in the bank, and the image scores.

    Returns:
        Maps [N, h_2, w_2] on stage 2's grid and scores [N] (Eq. 6 and 7), both float32.
    """
    maps, scores = [], []
    n_images = len(stages[0])
    for start in range(0, n_images, IMAGES_AT_ONCE):
        patches = local_patches([stage[start : start + IMAGES_AT_ONCE] for stage in stages])
        patches = patches.to(bank)
        distance, nearest = torch.cdist(patches.flatten(1, 2), bank[None]).min(dim=-1)  # [B, P]
        maps.append(distance.reshape(patches.shape[:3]).cpu().numpy())
        for image in range(len(patches)):
            worst = int(distance[image].argmax())
            score = reweighted_score(
                patches.flatten(1, 2)[image, worst], bank=bank, nearest=int(nearest[image, worst])
            )
            scores.append(score)
    return np.concatenate(maps), np.array(scores, np.float32)


def reweighted_score(patch: Tensor, *, bank: Tensor, nearest: int) -> float:
    """Distance of an image's worst patch, reduced where the bank is dense around its nearest neighbour (Eq. 7).

    Args:
        patch: [C], the patch that is farthest from the bank.
        bank: [M, C].
        nearest: position in the bank of the patch's nearest neighbour m*.

    Returns:
        (1 - exp(|patch - m*|) / sum exp(|patch - m|)) * |patch - m*|, m over the nearest neighbours of m*,
        itself among them.
    """
    around = (bank - bank[nearest]).norm(dim=-1).topk(min(N_NEIGHBOURS, len(bank)), largest=False).indices
    distances = (bank[around] - patch).norm(dim=-1)
    distance = (bank[nearest] - patch).norm()
    share = (distance - distances.logsumexp(dim=0)).exp()  # no overflow, whatever the distances
    return float((1 - share) * distance)


def local_patches(stages: Sequence[FloatArray]) -> Tensor:
    """Locally aware patches: stages 2 and 3, averaged over 3x3 neighbours, on stage 2's grid.

    Returns:
        [N, h_2, w_2, C_2 + C_3] float32.
    """
    _, second, third = (torch.from_numpy(np.asarray(stage)).permute(0, 3, 1, 2) for stage in stages)
    second, third = (
        F.avg_pool2d(stage, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        for stage in (second, third)
    )
    third = F.interpolate(third, size=second.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([second, third], dim=1).permute(0, 2, 3, 1).contiguous()


def project(points: Tensor, *, seed: int) -> Tensor:
    """Points [N, C] in fewer channels with nearly the same distances; unchanged where C is small enough."""
    if points.shape[1] <= PROJECTED_CHANNELS:
        return points
    projection = GaussianRandomProjection(n_components=PROJECTED_CHANNELS, random_state=seed)
    projected: NDArray[np.float64] = projection.fit_transform(points.numpy())
    return torch.from_numpy(projected.astype(np.float32))


def greedy_coreset(points: Tensor, *, n_selected: int, seed: int) -> Tensor:
    """Positions of points [N, C] that cover all others: each new one is the farthest from those before (Algorithm 1).

    The seed draws the first. They are in the order of selection, int64 on the CPU.
    """
    squares = points.square().sum(dim=1)
    distance = torch.full_like(squares, torch.inf)  # squared, of each point to the nearest selected one
    selected = [int(np.random.default_rng(seed).integers(len(points)))]
    with progress_bar("Coreset", n_selected) as bar:
        bar.advance()
        while len(selected) < n_selected:
            last = selected[-1]
            to_last = torch.add(squares, points @ points[last], alpha=-2).add_(squares[last])
            torch.minimum(distance, to_last, out=distance)
            distance[last] = -torch.inf  # never selected twice, even where rounding leaves it the farthest
            selected.append(int(distance.argmax()))
            bar.advance()
    return torch.tensor(selected)
