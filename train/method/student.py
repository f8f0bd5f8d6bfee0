"""The student with its generation blocks, built beside its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from train.config import FitConfig
from train.errors import ConfigError
from train.method.backbones import STAGES, Backbone, build_backbone
from train.method.distances import distance_maps, distillation_loss, summed_means
from train.method.pretrained_weights import LoadedWeights, load_weights, random_weights
from train.method.residuals import Residuals


class GenerationBlock(nn.Module):
    """Regenerates a stage's features: two 3x3 convolutions with a ReLU between them (Section 3.2).

    Args:
        student_channels: C_s, of the feature map that comes in.
        teacher_channels: C_t, of the one that goes out.
        width: channels between the two convolutions, as a share of the teacher's; the paper's is 1.
    """

    def __init__(self, *, student_channels: int, teacher_channels: int, width: float = 1.0) -> None:
        super().__init__()
        inner_channels = max(1, round(width * teacher_channels))
        self.first = nn.Conv2d(student_channels, inner_channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(inner_channels, teacher_channels, kernel_size=3, padding=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Regenerate a feature map: [B, C_s, h, w] to [B, C_t, h, w]."""
        regenerated: Tensor = self.second(self.first(feature).relu())
        return regenerated


class Student(nn.Module):
    """The student backbone and a generation block at some of the three stages.

    Args:
        backbone: gives features at three stages.
        teacher_channels: of the teacher's features at each stage, which the blocks have to regenerate.
        generation_stages: stages with a block, of 1, 2 and 3; the others pass the backbone's features on.
        generation_width: see `GenerationBlock`.
        centered_stages: stages compared with the teacher's features minus their mean, see `set_teacher_statistics`.
        residuals: measures differences by how unusual they are at their place; None for the cosine distance.

    Raises:
        ConfigError: a stage without a block whose channels are not the teacher's.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        teacher_channels: Sequence[int],
        generation_stages: Sequence[int] = STAGES,
        generation_width: float = 1.0,
        centered_stages: Sequence[int] = (),
        residuals: Residuals | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.residuals = residuals
        self.centered_stages = tuple(centered_stages)
        blocks: list[nn.Module] = []
        for stage, ours, theirs in zip(STAGES, backbone.channels, teacher_channels, strict=True):
            if stage in self.centered_stages:
                self.register_buffer(f"teacher_mean_{stage}", torch.zeros(theirs))
            if stage in generation_stages:
                blocks.append(
                    GenerationBlock(student_channels=ours, teacher_channels=theirs, width=generation_width)
                )
            elif ours == theirs:
                blocks.append(nn.Identity())
            else:
                raise ConfigError(
                    f"Stage {stage} has no generation block, and the student's {ours} channels are not the teacher's "
                    f"{theirs}; give it a block with --generation-stages or choose a student with the same channels."
                )
        self.generation_blocks = nn.ModuleList(blocks)

    def regenerate(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each stage's features [B, C_s, h, w] through its generation block: [B, C_t, h, w]."""
        return [block(feature) for block, feature in zip(self.generation_blocks, features, strict=True)]

    def set_teacher_statistics(self, means: Sequence[Tensor], stds: Sequence[Tensor]) -> None:
        """Set what the teacher's features are compared relative to: their mean and standard deviation, [C] a stage.

        They are over good images and positions; deviations are for residuals alone. All features of a network point
        more or less the same way; minus their mean, directions differ more.
        """
        for stage, mean in zip(STAGES, means, strict=True):
            if stage in self.centered_stages:
                getattr(self, f"teacher_mean_{stage}").copy_(mean)
        if self.residuals is not None:
            for residuals, mean, std in zip(self.residuals, means, stds, strict=True):
                residuals.set_channels(mean, std)

    def centered(self, teacher_features: Sequence[Tensor]) -> list[Tensor]:
        """What the student has to regenerate: the teacher's features [B, C, h, w], at centred stages minus the mean."""
        return [
            feature - getattr(self, f"teacher_mean_{stage}").view(1, -1, 1, 1)
            if stage in self.centered_stages
            else feature
            for stage, feature in zip(STAGES, teacher_features, strict=True)
        ]

    def loss(
        self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor], *, scale: float
    ) -> Tensor:
        """What training minimises: the difference of regenerated and teacher's features [B, C, h, w] a stage (Eq. 5).

        For `scale` see `train.method.distances.distance_map`; it is the cosine distance's.
        """
        if self.residuals is not None:
            loss: Tensor = self.residuals.loss(regenerated, teacher_features)
            return loss
        return distillation_loss(regenerated, self.centered(teacher_features), scale=scale)

    def distances(self, image: Tensor, teacher_features: Sequence[Tensor], *, scale: float) -> list[Tensor]:
        """Distance maps [B, h, w] a stage of images [B, H, W, 3] uint8 to the teacher's features [B, C, h, w] of them.

        As in the testing process, without masking (Section 3.4); for `scale` see `loss`.
        """
        return self.compare(self(image), teacher_features, scale=scale)

    def compare(
        self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor], *, scale: float
    ) -> list[Tensor]:
        """Distance maps [B, h, w] a stage of regenerated and teacher's features [B, C, h, w]."""
        if self.residuals is not None:
            distances: list[Tensor] = self.residuals(regenerated, teacher_features)
            return distances
        return distance_maps(regenerated, self.centered(teacher_features), scale=scale)

    def loss_and_distances(
        self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, list[Tensor]]:
        """`loss` and `compare` of the same features; the cosine distance, which is both, is computed once."""
        distances = self.compare(regenerated, teacher_features, scale=scale)
        if self.residuals is not None:
            return self.residuals.loss(regenerated, teacher_features), distances
        return summed_means(distances), distances

    def forward(self, image: Tensor) -> list[Tensor]:
        """Regenerated features of `image` [B, H, W, 3] uint8, without masking (Section 3.4)."""
        return self.regenerate(self.backbone(image))


def build_teacher_and_student(
    config: FitConfig, *, weights_dir: Path | None
) -> tuple[Backbone, Student, dict[str, str]]:
    """Build both networks with pretrained weights, and say where the weights came from.

    The generation blocks start from torch's default initialisation under the configuration's seed.

    Returns:
        The teacher (frozen, in evaluation mode), the student, and the source of each one's weights.

    Raises:
        WeightsError, ConfigError: see `load_weights` and `build_backbone`.
    """
    teacher, teacher_source = load_teacher(config, weights_dir=weights_dir)
    if config.student_weights == "scratch":
        student_weights = random_weights(config.student, seed=config.seed)
    else:
        student_weights = _weights(config, config.student, weights_dir)
    backbone = build_backbone(config.student, student_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = build_student(config, backbone=backbone, teacher_channels=teacher.channels)
    return teacher, student, {"teacher": teacher_source, "student": student_weights.source}


def load_teacher(config: FitConfig, *, weights_dir: Path | None) -> tuple[Backbone, str]:
    """The configuration's teacher alone, frozen, in evaluation mode, and the source of its weights.

    Raises:
        WeightsError, ConfigError: see `load_weights` and `build_backbone`.
    """
    weights = _weights(config, config.teacher, weights_dir)
    teacher = build_backbone(config.teacher, weights, can_sharpen=config.can_sharpen)
    return teacher.eval().requires_grad_(False), weights.source


def build_student(config: FitConfig, *, backbone: Backbone, teacher_channels: Sequence[int]) -> Student:
    """The student that a configuration asks for, around its backbone.

    Raises:
        ConfigError: see `Student` and `Residuals`.
    """
    residuals = None
    if config.distance == "mahalanobis":
        residuals = Residuals(
            teacher_channels=teacher_channels,
            image_size=config.image_size,
            neighbourhoods=config.neighbourhoods,
            common_factors=config.common_factors,
        )
    return Student(
        backbone=backbone,
        teacher_channels=teacher_channels,
        generation_stages=config.generation_stages,
        generation_width=config.generation_width,
        centered_stages=config.centered_stages,
        residuals=residuals,
    )


def student_without_weights(config: FitConfig) -> Student:
    """The student on torch's meta device, which holds shapes and no values: built in a moment, to count its size.

    Raises:
        ConfigError: see `Student` and `build_backbone`.
    """
    with torch.device("meta"):
        teacher, backbone = (
            Backbone(name, mean=(0.0,) * 3, std=(1.0,) * 3) for name in (config.teacher, config.student)
        )
        return build_student(config, backbone=backbone, teacher_channels=teacher.channels)


def teacher_channels(config: FitConfig) -> tuple[int, ...]:
    """Channels of the teacher's three stages, without its weights.

    Raises:
        ConfigError: see `build_backbone`.
    """
    with torch.device("meta"):
        return tuple(Backbone(config.teacher, mean=(0.0,) * 3, std=(1.0,) * 3).channels)


def _weights(config: FitConfig, name: str, weights_dir: Path | None) -> LoadedWeights:
    if config.weights == "random":
        return random_weights(name, seed=config.seed)
    return load_weights(name, weights_dir=weights_dir)
