"""The student, its generation blocks and what it is compared with; the paper's sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from train.config import fit_config
from train.method.backbones import Backbone
from train.method.distances import distance_maps
from train.method.student import GenerationBlock, Student, build_teacher_and_student


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    regenerated, again = student(image), student(image)
    for stage, feature in enumerate(regenerated):
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


def test_centred_features_are_compared_minus_their_mean_over_good_images() -> None:
    overrides = {"teacher": "test_resnet", "student": "test_efficientnet", "weights": "random"}
    config = fit_config("paper", overrides | {"centered_stages": (1, 2, 3)})
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=seeded())
    features = teacher(image)
    means = [feature.mean(dim=(0, 2, 3)) for feature in features]
    student.eval().set_teacher_statistics(means, ())
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
        fit_config("paper", overrides | {"centered_stages": (3,)}), weights_dir=None
    )[1]
    last.set_teacher_statistics(means, ())
    first, second, third = last.centered(features)
    assert torch.equal(first, features[0])
    assert torch.equal(second, features[1])
    torch.testing.assert_close(third, features[2] - means[2].view(1, -1, 1, 1))
