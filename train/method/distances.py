"""Masks over the student's features, their distance to the teacher's, and the loss (Sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.method.backbones import STAGES

NORM_EPSILON = 1e-6  # a feature vector of all zeros has no direction; its cosine is then 0


def draw_masks(
    sides: Sequence[Sequence[int]],
    *,
    mask_ratio: float,
    generator: torch.Generator,
    stages: Sequence[int] = STAGES,
) -> list[Tensor | None]:
    """Which positions of each stage stay (Algorithm 1, line 1): one mask [h, w] bool, for a batch and all channels.

    Args:
        sides: (h, w) of each stage's features.
        mask_ratio: share of the positions that is hidden.
        generator: draws the masks, on its own device.
        stages: those with a generation block; without one there is nothing to regenerate, and None for a mask.
    """
    return [
        torch.rand(tuple(side), generator=generator, device=generator.device) >= mask_ratio
        if stage in stages
        else None
        for stage, side in enumerate(sides, start=1)
    ]


def apply_masks(features: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
    """Hide positions of each stage's features [B, C, h, w] under its mask [h, w], where it has one."""
    return [
        feature if mask is None else feature * mask.to(feature)
        for feature, mask in zip(features, masks, strict=True)
    ]


def mask_features(
    features: Sequence[Tensor],
    *,
    mask_ratio: float,
    generator: torch.Generator,
    stages: Sequence[int] = STAGES,
) -> list[Tensor]:
    """Hide random positions of each stage's features [B, C, h, w] (Algorithm 1, lines 1 to 3), see `draw_masks`."""
    sides = [feature.shape[-2:] for feature in features]
    masks = draw_masks(sides, mask_ratio=mask_ratio, generator=generator, stages=stages)
    return apply_masks(features, masks)


def distance_map(student_feature: Tensor, teacher_feature: Tensor, *, scale: float) -> Tensor:
    """Distance of two feature maps at each position: weighted sum of Eq. 1 and Eq. 3.

    Half the squared distance of two unit vectors is one minus their cosine, so both equations have one
    value and the cosine is computed once.

    Args:
        student_feature: [B, C, h, w].
        teacher_feature: [B, C, h, w].
        scale: weight of the cosine distance plus weight of the L2 distance, 1 + alpha in the paper.

    Returns:
        [B, h, w], from 0 (same direction) to 2 * scale (opposite).
    """
    dot = (student_feature * teacher_feature).sum(dim=1)
    norms = student_feature.norm(dim=1) * teacher_feature.norm(dim=1)
    distance: Tensor = scale * (1 - dot / norms.clamp_min(NORM_EPSILON))
    return distance


def distance_maps(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, scale: float
) -> list[Tensor]:
    """`distance_map` at each stage."""
    return [
        distance_map(ours, theirs, scale=scale)
        for ours, theirs in zip(student_features, teacher_features, strict=True)
    ]


def distillation_loss(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, scale: float
) -> Tensor:
    """Mean distance over batch and positions, summed over the stages (Eq. 2, 4 and 5)."""
    return summed_means(distance_maps(student_features, teacher_features, scale=scale))


def summed_means(maps: Sequence[Tensor]) -> Tensor:
    """Mean of each stage's distance maps [B, h, w], summed over the stages."""
    return torch.stack([stage.mean() for stage in maps]).sum()
