"""AST-MFR: teacher, student with masked feature regeneration, distances and loss (Section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from train.config import FitConfig
from train.errors import ConfigError
from train.fitting.cpu.winograd import winograd_conv3x3
from train.method.backbones import Backbone, LoadedWeights, build_backbone, load_weights, random_weights

STAGES = (1, 2, 3)
WINOGRAD_CHANNELS = 96  # with fewer, its transforms cost more than its products save
NORM_EPSILON = 1e-6  # a feature vector of all zeros has no direction; its cosine is then 0


class GenerationBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between, student's channels to teacher's (Section 3.2).

    `width` is the share of the teacher's channels between them; the paper's is 1.

    Attributes:
        fast_training: in training mode, convolve many channels by `train.fitting.cpu.winograd`; on the CPU, in float32.
    """

    def __init__(self, *, student_channels: int, teacher_channels: int, width: float = 1.0) -> None:
        super().__init__()
        self.fast_training = False
        inner_channels = max(1, round(width * teacher_channels))
        self.first = nn.Conv2d(student_channels, inner_channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(inner_channels, teacher_channels, kernel_size=3, padding=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Regenerate a feature map: [B, C_s, h, w] to [B, C_t, h, w]."""
        return self._convolve(self.second, self._convolve(self.first, feature).relu())

    def _convolve(self, layer: nn.Conv2d, feature: Tensor) -> Tensor:
        wide = min(layer.in_channels, layer.out_channels) >= WINOGRAD_CHANNELS
        if self.training and self.fast_training and wide:
            assert layer.bias is not None
            return winograd_conv3x3(feature, layer.weight, layer.bias)
        convolved: Tensor = layer(feature)
        return convolved


class Student(nn.Module):
    """The student backbone and a generation block at some of the three stages.

    Args:
        backbone: gives features at three stages.
        teacher_channels: what the blocks have to give.
        generation_stages: stages with a block, of 1, 2 and 3; the others pass the backbone's features on.
        generation_width: see `GenerationBlock`.
        centered_stages: those compared with the teacher's features less their mean, see `set_teacher_means`.

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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.centered_stages = tuple(centered_stages)
        for stage, channels in zip(STAGES, teacher_channels, strict=True):
            if stage in self.centered_stages:
                self.register_buffer(f"teacher_mean_{stage}", torch.zeros(channels))
        self.generation_stages = tuple(generation_stages)
        blocks: list[nn.Module] = []
        for stage, ours, theirs in zip(STAGES, backbone.channels, teacher_channels, strict=True):
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

    def set_teacher_means(self, means: Sequence[Tensor]) -> None:
        """Where features are centred: the mean over good images and positions, [C] a stage.

        All features of a network point more or less the same way; less their mean, directions differ more.
        """
        for stage, mean in zip(STAGES, means, strict=True):
            if stage in self.centered_stages:
                getattr(self, f"teacher_mean_{stage}").copy_(mean)

    def centered(self, teacher_features: Sequence[Tensor]) -> list[Tensor]:
        """What the student has to regenerate: the teacher's features [B, C, h, w], less their means if centred."""
        return [
            feature - getattr(self, f"teacher_mean_{stage}").view(1, -1, 1, 1)
            if stage in self.centered_stages
            else feature
            for stage, feature in zip(STAGES, teacher_features, strict=True)
        ]

    def distances(self, image: Tensor, teacher_features: Sequence[Tensor], *, scale: float) -> list[Tensor]:
        """Distance maps [B, h, w] a stage, as in the testing process: no masking (Section 3.4).

        Args:
            image: [B, H, W, 3] uint8.
            teacher_features: [B, C, h, w] a stage, of the same images.
            scale: see `distance_map`.
        """
        return distance_maps(self(image), self.centered(teacher_features), scale=scale)

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
        WeightsError, ConfigError: see `train.method.backbones`.
    """
    teacher_weights = _weights(config, config.teacher, weights_dir)
    if config.student_weights == "scratch":
        student_weights = random_weights(config.student, seed=config.seed)
    else:
        student_weights = _weights(config, config.student, weights_dir)
    teacher = build_backbone(config.teacher, teacher_weights)
    backbone = build_backbone(config.student, student_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = build_student(config, backbone=backbone, teacher_channels=teacher.channels)
    sources = {"teacher": teacher_weights.source, "student": student_weights.source}
    return teacher.eval().requires_grad_(False), student, sources


def load_teacher(config: FitConfig, *, weights_dir: Path | None) -> Backbone:
    """The configuration's teacher alone, frozen, in evaluation mode.

    Raises:
        WeightsError, ConfigError: see `train.method.backbones`.
    """
    weights = _weights(config, config.teacher, weights_dir)
    return build_backbone(config.teacher, weights).eval().requires_grad_(False)


def build_student(config: FitConfig, *, backbone: Backbone, teacher_channels: Sequence[int]) -> Student:
    """The student that a configuration asks for, around its backbone.

    Raises:
        ConfigError: see `Student`.
    """
    return Student(
        backbone=backbone,
        teacher_channels=teacher_channels,
        generation_stages=config.generation_stages,
        generation_width=config.generation_width,
        centered_stages=config.centered_stages,
    )


def student_without_weights(config: FitConfig) -> Student:
    """The student on torch's meta device: sizes and nothing else, in a moment.

    Raises:
        ConfigError: see `Student` and `train.method.backbones.build_backbone`.
    """
    with torch.device("meta"):
        teacher, backbone = (
            Backbone(name, mean=(0.0,) * 3, std=(1.0,) * 3) for name in (config.teacher, config.student)
        )
        return build_student(config, backbone=backbone, teacher_channels=teacher.channels)


def _weights(config: FitConfig, name: str, weights_dir: Path | None) -> LoadedWeights:
    if config.weights == "random":
        return random_weights(name, seed=config.seed)
    return load_weights(name, weights_dir=weights_dir)


def mask_features(
    features: Sequence[Tensor],
    *,
    mask_ratio: float,
    generator: torch.Generator,
    stages: Sequence[int] = STAGES,
) -> list[Tensor]:
    """Hide random positions of each stage's features (Algorithm 1, lines 1 to 3).

    One mask [h, w] a stage, shared by the batch and the channels.

    Args:
        features: [B, C, h, w] a stage.
        mask_ratio: share of the positions set to 0.
        generator: of the CPU; draws the masks.
        stages: those with a generation block; without one there is nothing to regenerate and no mask.
    """
    masked = []
    for stage, feature in enumerate(features, start=1):
        if stage in stages:
            noise = torch.rand(feature.shape[-2:], generator=generator)
            feature = feature * (noise >= mask_ratio).to(feature)
        masked.append(feature)
    return masked


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
    return torch.stack(
        [d.mean() for d in distance_maps(student_features, teacher_features, scale=scale)]
    ).sum()
