"""The two presets, and configurations that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from model_repository.image_size import NATIVE, NATIVE_TEXT, size_text
from train.config.fit_config import FitConfig
from train.errors import ConfigError

# What goes with the distance cosine and has to go where it is asked for.
OF_COSINE: Mapping[str, Any] = {"neighbourhoods": (1, 1, 1), "sharpening": (0.0,), "common_factors": 0}

# Of pictures at their own size, unless stated: 66 pixels of a crop of 256, about as many as a defect of 8 x 8 has.
NATIVE_SCORE_SHARE = 0.001
SCORE_SHARE = 0.01  # of `edge` at a fixed size


def field_text(name: str, value: Any) -> str:
    """A field's value as the command line takes it: `384x512`, `1,2,3`, `true`."""
    if name == "image_size":
        return size_text(value)
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value).lower()


PRESETS: Mapping[str, FitConfig] = {
    # The paper's protocol, Section 4.1.
    "paper": FitConfig(),
    # For CPUs and small devices; docs/measurements/edge-preset.md shows what was tried.
    "edge": FitConfig(
        preset="edge",
        teacher="tf_efficientnet_lite2",
        student="tf_efficientnet_lite0",
        image_size=128,
        mask_ratio=0.4,
        batch_size=16,
        drop_last=True,
        epochs=None,
        steps=400,
        distance="mahalanobis",
        neighbourhoods=(3, 3, 1),
        common_factors=15,
        sharpening=(0.0, 4.0),
        schedule="cosine",
        freeze_batchnorm=True,
        smoothing_sigma=2.0,
        score_share=SCORE_SHARE,
        stage_weighting="pasted_defects",
    ),
}


def fit_config(preset: str, overrides: Mapping[str, Any]) -> FitConfig:
    """A preset with some fields replaced; `steps` takes the place of `epochs` and the other way round.

    The distance cosine takes what only mahalanobis has with it. Pictures at their own size score by fewer pixels and
    have no common factors.

    Raises:
        ConfigError: an unknown preset, or fields out of range; all faults are reported at once.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}; expected one of {', '.join(PRESETS)}.")
    return changed_config(PRESETS[preset], overrides)


def refuse_native(config: FitConfig, what: str) -> None:
    """Refuse pictures that keep their own size.

    Raises:
        ConfigError: they do; `what` names who cannot take them.
    """
    if config.is_native:
        raise ConfigError(
            f"{what} takes pictures of one size, and found native; expected --image-size 256 or 384x512."
        )


def changed_config(base: FitConfig, overrides: Mapping[str, Any]) -> FitConfig:
    """A configuration with some fields replaced, see `fit_config`.

    Raises:
        ConfigError: fields out of range; all faults are reported at once.
    """
    values = base.model_dump()
    if overrides.keys() & {"epochs", "steps"}:
        values |= {"epochs": None, "steps": None}
    if overrides.get("distance") == "cosine":
        values |= OF_COSINE
    if overrides.get("image_size") in (NATIVE, NATIVE_TEXT):
        values["common_factors"] = 0
        if values["score_share"]:
            values["score_share"] = NATIVE_SCORE_SHARE
    elif "image_size" in overrides and base.is_native:
        if values["score_share"] == NATIVE_SCORE_SHARE:
            values["score_share"] = SCORE_SHARE
        if {base.distance, overrides.get("distance", base.distance)} == {"mahalanobis"}:
            values["common_factors"] = PRESETS.get(base.preset, base).common_factors
    try:
        return FitConfig(**{**values, **overrides})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}, "
            # Regions hold thousands of corners.
            f"found {fault['input'] if isinstance(fault['input'], BaseModel) else repr(fault['input'])}"
            for fault in error.errors()
        )
        raise ConfigError(f"The options of this run cannot be used: {faults}.") from None
