"""What a training run is made of: one frozen configuration, and the two presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from train.errors import ConfigError


class FitConfig(BaseModel):
    """All choices of a run; the defaults are the paper's (Section 4.1), units and ranges stand in each field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "paper"
    teacher: str = Field("wide_resnet50_2", description="timm name of the frozen teacher")
    student: str = Field("resnext50_32x4d", description="timm name of the student")
    weights: Literal["pretrained", "random"] = "pretrained"
    image_size: int = Field(256, ge=32, le=2048, multiple_of=32, description="side, pixels")
    mask_ratio: float = Field(0.5, ge=0, lt=1, description="share of feature positions hidden (Algorithm 1)")
    alpha: float = Field(1.0, ge=0, description="weight of the L2 distance (Eq. 5)")
    batch_size: int = Field(32, ge=1, description="images")
    epochs: int | None = Field(200, ge=1, description="passes over the training images")
    steps: int | None = Field(
        None, ge=1, validate_default=True, description="optimiser steps, in place of epochs"
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's decay rates")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate over the steps")
    freeze_batchnorm: bool = Field(False, description="keep the student's pretrained BatchNorm statistics")
    smoothing_sigma: float = Field(4.0, ge=0, description="Gaussian blur of the anomaly map, pixels")
    pool_size: int = Field(5, ge=1, description="average pooling window, pixels, odd")
    stage_weighting: Literal["equal", "good_maximum"] = Field(
        "equal",
        description="sum the stages as they are, or each by its usual maximum on held-out good images",
    )
    foreground: Literal["none", "threshold", "sam"] = Field(
        "none", description="how the background is removed from the anomaly map (Section 4.4, Table 9)"
    )
    holdout_ratio: float = Field(0.15, gt=0, lt=1, description="share of good images kept for calibration")
    false_reject_rate: float = Field(0.01, gt=0, lt=1, description="share of good images it may reject")
    seed: int = Field(0, ge=0)

    # Of fields, not of the model: pydantic asks a model's validator only when no field is at fault.
    @field_validator("steps")
    @classmethod
    def _either_epochs_or_steps(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data and (info.data["epochs"] is None) == (steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        return steps

    @field_validator("pool_size")
    @classmethod
    def _odd(cls, pool_size: int) -> int:
        if pool_size % 2 == 0:
            raise ValueError("expected an odd number")
        return pool_size

    def total_steps(self, n_images: int) -> int:
        """Optimiser steps for this many training images; a last, smaller batch of an epoch is left out."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * max(1, n_images // self.batch_size)


PRESETS: Mapping[str, FitConfig] = {
    # The paper's protocol, Section 4.1.
    "paper": FitConfig(),
    # For CPUs and small devices; docs/edge-preset.md shows what was tried.
    "edge": FitConfig(
        preset="edge",
        teacher="tf_efficientnet_lite2",
        student="tf_efficientnet_lite0",
        image_size=128,
        mask_ratio=0.4,
        batch_size=16,
        epochs=None,
        steps=500,
        schedule="cosine",
        freeze_batchnorm=True,
        smoothing_sigma=6.0,
        stage_weighting="good_maximum",
    ),
}


def fit_config(preset: str, overrides: Mapping[str, Any]) -> FitConfig:
    """A preset with some fields replaced; `steps` takes the place of `epochs` and the other way round.

    Raises:
        ConfigError: an unknown preset, or fields out of range; all faults are told at once.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}; expected one of {', '.join(PRESETS)}.")
    values = PRESETS[preset].model_dump()
    if overrides.keys() & {"epochs", "steps"}:
        values |= {"epochs": None, "steps": None}
    try:
        return FitConfig(**{**values, **overrides})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}, "
            f"found {fault['input']!r}"
            for fault in error.errors()
        )
        raise ConfigError(f"The options of this run cannot be used: {faults}.") from None
