"""Equations 1 to 5 and Algorithm 1 against loops written from the paper, and the paper's sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from train.config import fit_config
from train.method.backbones import Backbone
from train.method.student import (
    GenerationBlock,
    Student,
    build_teacher_and_student,
    distance_map,
    distance_maps,
    distillation_loss,
    mask_features,
)


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
    found = distance_map(ours, theirs, scale=1 + alpha)
    assert found.shape == (2, 3, 4)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                a, b = ours[image, :, row, column].tolist(), theirs[image, :, row, column].tolist()
                expected = cosine_distance(a, b) + alpha * l2_distance(a, b)
                assert found[image, row, column].item() == pytest.approx(expected, abs=1e-5)


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


def test_generation_block_is_two_convolutions_with_a_relu_between() -> None:
    block = GenerationBlock(student_channels=2, teacher_channels=3)
    assert [tuple(layer.weight.shape) for layer in (block.first, block.second)] == [
        (3, 2, 3, 3),
        (3, 3, 3, 3),
    ]
    feature = torch.randn(1, 2, 5, 5, generator=seeded())
    hidden = torch.conv2d(feature, block.first.weight, block.first.bias, padding=1).clamp(min=0)
    expected = torch.conv2d(hidden, block.second.weight, block.second.bias, padding=1)
    torch.testing.assert_close(block(feature), expected)
    assert block(feature).shape == (1, 3, 5, 5)


def test_forward_is_the_testing_process_without_masks() -> None:
    config = fit_config(
        "edge", {"teacher": "test_resnet", "student": "test_efficientnet", "weights": "random"}
    )
    teacher, student, sources = build_teacher_and_student(config, weights_dir=None)
    assert sources == {"teacher": "random, seed 0", "student": "random, seed 0"}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=seeded())
    student.train()  # even in training mode nothing is masked or random
    found, again = student(image), student(image)
    for stage, feature in enumerate(found):
        expected = student.generation_blocks[stage](student.backbone(image)[stage])
        torch.testing.assert_close(feature, expected)
        assert torch.equal(feature, again[stage])
        assert feature.shape == teacher(image)[stage].shape


def test_generation_blocks_start_from_the_seed() -> None:
    def first_weight(seed: int) -> Tensor:
        overrides = {"teacher": "test_resnet", "student": "test_resnet", "weights": "random", "seed": seed}
        _, student, _ = build_teacher_and_student(fit_config("edge", overrides), weights_dir=None)
        return student.generation_blocks[0].first.weight  # type: ignore[union-attr, return-value]

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


# Table 5 of the paper, and what was measured for the teacher.
@pytest.mark.parametrize(
    ("name", "as_student", "parameters_m", "gmacs"),
    [
        ("resnext50_32x4d", True, 33.21, 18.89),
        ("wide_resnet50_2", True, 49.64, 26.49),
        ("wide_resnet50_2", False, 24.86, None),
    ],
)
def test_the_papers_sizes(name: str, as_student: bool, parameters_m: float, gmacs: float | None) -> None:
    with torch.device("meta"):
        network: torch.nn.Module = Backbone(name, mean=(0.0,) * 3, std=(1.0,) * 3)
        if as_student:
            network = Student(backbone=network, teacher_channels=[256, 512, 1024])  # type: ignore[arg-type]
        image = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters / 1e6 == pytest.approx(parameters_m, abs=0.005)
    if gmacs is not None:
        with FlopCounterMode(display=False) as counter:
            features = network.eval()(image)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.005)
        assert [feature.shape for feature in features] == [
            (1, 256, 64, 64),
            (1, 512, 32, 32),
            (1, 1024, 16, 16),
        ]


def test_centred_features_are_compared_less_their_mean_over_good_images() -> None:
    overrides = {"teacher": "test_resnet", "student": "test_efficientnet", "weights": "random"}
    config = fit_config("edge", overrides | {"centered_stages": (1, 2, 3)})
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=seeded())
    features = teacher(image)
    means = [feature.mean(dim=(0, 2, 3)) for feature in features]
    student.eval().set_teacher_means(means)
    for feature, centered in zip(features, student.centered(features), strict=True):
        assert centered.shape == feature.shape
        torch.testing.assert_close(
            centered.mean(dim=(0, 2, 3)), torch.zeros(feature.shape[1]), atol=1e-4, rtol=0
        )
    expected = distance_maps(
        student(image), [f - m.view(1, -1, 1, 1) for f, m in zip(features, means, strict=True)], scale=2.0
    )
    torch.testing.assert_close(student.distances(image, features, scale=2.0), expected)
    last = build_teacher_and_student(
        fit_config("edge", overrides | {"centered_stages": (3,)}), weights_dir=None
    )[1]
    last.set_teacher_means(means)
    first, second, third = last.centered(features)
    assert torch.equal(first, features[0])
    assert torch.equal(second, features[1])
    torch.testing.assert_close(third, features[2] - means[2].view(1, -1, 1, 1))
