"""AST-MFR: teacher, student with masked feature regeneration, distances and loss (Section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from train.backbones import Backbone, build_backbone, load_weights, random_weights
from train.config import FitConfig

NORM_EPSILON = 1e-6  # a feature vector of all zeros has no direction; its cosine is then 0


class GenerationBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between, student's channels to teacher's (Section 3.2)."""

    def __init__(self, *, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(student_channels, teacher_channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(teacher_channels, teacher_channels, kernel_size=3, padding=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Regenerate a feature map: [B, C_s, h, w] to [B, C_t, h, w]."""
        regenerated: Tensor = self.second(self.first(feature).relu())
        return regenerated


class Student(nn.Module):
    """The student backbone and a generation block a stage."""

    def __init__(self, *, backbone: Backbone, teacher_channels: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.generation_blocks = nn.ModuleList(
            GenerationBlock(student_channels=ours, teacher_channels=theirs)
            for ours, theirs in zip(backbone.channels, teacher_channels, strict=True)
        )

    def regenerate(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each stage's features [B, C_s, h, w] through its generation block: [B, C_t, h, w]."""
        return [block(feature) for block, feature in zip(self.generation_blocks, features, strict=True)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Regenerated features of `image` [B, H, W, 3] uint8, without masking (Section 3.4)."""
        return self.regenerate(self.backbone(image))


def build_teacher_and_student(
    config: FitConfig, *, weights_dir: Path | None
) -> tuple[Backbone, Student, dict[str, str]]:
    """Build both networks with pretrained weights, and tell where the weights came from.

    The generation blocks start from torch's default initialisation under the configuration's seed.

    Returns:
        The teacher (frozen, in evaluation mode), the student, and the source of each one's weights.

    Raises:
        WeightsError, ConfigError: see `train.backbones`.
    """
    sources = {}
    backbones = []
    for role, name in (("teacher", config.teacher), ("student", config.student)):
        if config.weights == "random":
            weights = random_weights(name, seed=config.seed)
        else:
            weights = load_weights(name, weights_dir=weights_dir)
        sources[role] = weights.source
        backbones.append(build_backbone(name, weights))
    teacher, student_backbone = backbones
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = Student(backbone=student_backbone, teacher_channels=teacher.channels)
    return teacher.eval().requires_grad_(False), student, sources


def mask_features(
    features: Sequence[Tensor], *, mask_ratio: float, generator: torch.Generator
) -> list[Tensor]:
    """Hide random positions of each stage's features (Algorithm 1, lines 1 to 3).

    One mask [h, w] a stage, shared by the batch and the channels.

    Args:
        features: [B, C, h, w] a stage.
        mask_ratio: share of the positions set to 0.
        generator: of the CPU; draws the masks.
    """
    masked = []
    for feature in features:
        noise = torch.rand(feature.shape[-2:], generator=generator)
        masked.append(feature * (noise >= mask_ratio).to(feature))
    return masked


def distance_map(student_feature: Tensor, teacher_feature: Tensor, *, alpha: float) -> Tensor:
    """Distance of two feature maps at each position, Eq. 1 plus alpha times Eq. 3.

    Half the squared distance of two unit vectors is one minus their cosine, so both equations have one
    value and the cosine is computed once.

    Args:
        student_feature: [B, C, h, w].
        teacher_feature: [B, C, h, w].
        alpha: weight of the L2 distance.

    Returns:
        [B, h, w], from 0 (same direction) to 2 * (1 + alpha) (opposite).
    """
    dot = (student_feature * teacher_feature).sum(dim=1)
    norms = student_feature.norm(dim=1) * teacher_feature.norm(dim=1)
    distance: Tensor = (1 + alpha) * (1 - dot / norms.clamp_min(NORM_EPSILON))
    return distance


def distance_maps(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, alpha: float
) -> list[Tensor]:
    """`distance_map` at each stage."""
    return [
        distance_map(ours, theirs, alpha=alpha)
        for ours, theirs in zip(student_features, teacher_features, strict=True)
    ]


def distillation_loss(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, alpha: float
) -> Tensor:
    """Mean distance over batch and positions, summed over the stages (Eq. 2, 4 and 5)."""
    return torch.stack(
        [d.mean() for d in distance_maps(student_features, teacher_features, alpha=alpha)]
    ).sum()
