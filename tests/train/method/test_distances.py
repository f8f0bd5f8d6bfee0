"""Equations 1 to 5 and Algorithm 1 against loops written from the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train.method.distances import distance_map, distance_maps, distillation_loss, mask_features


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def feature_pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def cosine_distance(ours: list[float], theirs: list[float]) -> float:
    """Eq. 1 at one position: one minus the cosine."""
    dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
    return 1 - dot / (math.hypot(*ours) * math.hypot(*theirs))


def l2_distance(ours: list[float], theirs: list[float]) -> float:
    """Eq. 3 at one position: half the squared distance of the unit vectors."""
    unit_ours = [value / math.hypot(*ours) for value in ours]
    unit_theirs = [value / math.hypot(*theirs) for value in theirs]
    return 0.5 * sum((a - b) ** 2 for a, b in zip(unit_ours, unit_theirs, strict=True))


def test_half_the_squared_distance_of_unit_vectors_is_one_minus_their_cosine() -> None:
    ours, theirs = feature_pair(100, 7)
    for a, b in zip(ours.double().tolist(), theirs.double().tolist(), strict=True):
        assert l2_distance(a, b) == pytest.approx(cosine_distance(a, b), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_distance_map_is_eq_1_plus_alpha_eq_3(alpha: float) -> None:
    ours, theirs = feature_pair(2, 5, 3, 4)
    distance = distance_map(ours, theirs, scale=1 + alpha)
    assert distance.shape == (2, 3, 4)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                a, b = ours[image, :, row, column].tolist(), theirs[image, :, row, column].tolist()
                expected = cosine_distance(a, b) + alpha * l2_distance(a, b)
                assert distance[image, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_distance_by_hand() -> None:
    # Same direction, right angle, opposite, 45 degrees.
    ours = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 2, 1, 4)
    theirs = torch.tensor([[3.0, 0.0, -2.0, 1.0], [0.0, 5.0, 0.0, 1.0]]).view(1, 2, 1, 4)
    expected = torch.tensor([0.0, 2.0, 4.0, 2 * (1 - math.sqrt(0.5))]).view(1, 1, 4)
    torch.testing.assert_close(distance_map(ours, theirs, scale=2.0), expected)


def test_loss_is_eq_5_written_with_loops() -> None:
    stages = [feature_pair(2, 3, 4, 4, seed=1), feature_pair(2, 5, 2, 2, seed=2), feature_pair(2, 4, 1, 1)]
    alpha, cosine_loss, l2_loss = 0.7, 0.0, 0.0
    for (
        ours,
        theirs,
    ) in stages:  # Eq. 2 and Eq. 4: the mean over positions (and the batch), summed over stages
        batch, _, height, width = ours.shape
        for image in range(batch):
            for row in range(height):
                for column in range(width):
                    a, b = ours[image, :, row, column].tolist(), theirs[image, :, row, column].tolist()
                    cosine_loss += cosine_distance(a, b) / (batch * height * width)
                    l2_loss += l2_distance(a, b) / (batch * height * width)
    student_features, teacher_features = zip(*stages, strict=True)
    loss = distillation_loss(student_features, teacher_features, scale=1 + alpha)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(cosine_loss + alpha * l2_loss, abs=1e-5)
    assert [d.shape for d in distance_maps(student_features, teacher_features, scale=1 + alpha)] == [
        (2, 4, 4),
        (2, 2, 2),
        (2, 1, 1),
    ]


def test_zero_vectors_have_no_direction_and_a_finite_gradient() -> None:
    ours = torch.zeros(1, 4, 2, 2, requires_grad=True)
    _, theirs = feature_pair(1, 4, 2, 2)
    for teacher_feature in (theirs, torch.zeros_like(theirs)):
        distance = distance_map(ours, teacher_feature, scale=1.5)
        torch.testing.assert_close(distance.detach(), torch.full((1, 2, 2), 1.5))
        (gradient,) = torch.autograd.grad(distance.sum(), ours)
        assert gradient.isfinite().all()


def test_one_mask_is_shared_by_batch_and_channels() -> None:
    features = [torch.ones(3, 5, 16, 16), 2 * torch.ones(3, 2, 8, 8)]
    masked = mask_features(features, mask_ratio=0.5, generator=seeded())
    for feature, hidden in zip(features, masked, strict=True):
        assert hidden.shape == feature.shape
        mask = hidden[0, 0]
        assert set(mask.unique().tolist()) == {0.0, feature.max().item()}  # zero, or untouched: no rescaling
        torch.testing.assert_close(hidden, mask.expand_as(hidden))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_mask_ratio_is_the_share_hidden(ratio: float) -> None:
    (masked,) = mask_features([torch.ones(1, 1, 200, 200)], mask_ratio=ratio, generator=seeded())
    hidden = (masked == 0).float().mean().item()
    assert hidden == pytest.approx(ratio, abs=5 * math.sqrt(ratio * (1 - ratio) / 40_000))


def test_masks_follow_the_seed_and_change_from_step_to_step() -> None:
    features, generator = [torch.ones(1, 1, 16, 16)], seeded(3)
    first, second = (mask_features(features, mask_ratio=0.5, generator=generator)[0] for _ in range(2))
    again = mask_features(features, mask_ratio=0.5, generator=seeded(3))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
