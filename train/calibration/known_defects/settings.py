"""What known defects choose from: a short list, for a few defects find an accident in a long one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.calibration.weighing import stage_weights, summing_to_3
from train.checkpoint.known_defects import FusionSetting
from train.config import FitConfig
from train.support.arrays import FloatArray

WEIGHTINGS = ("equal", "good_maximum", "pasted_defects")
# Factors of the weights that drown no stage: each stage alone, without one, and with more of one.
EMPHASES = (
    (2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0),
    (0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0),
    (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0),
)  # fmt: skip
SIGMA_FACTORS = (1.0, 0.5, 1.5, 2.0)
SIGMAS_WITHOUT_BLUR = (0.0, 1.0, 2.0)  # pixels; where the present setting has no blur


def settings_to_try(
    present: FusionSetting, *, foregrounds: Sequence[str], with_pasted: bool, largest_sigma: float
) -> tuple[FusionSetting, ...]:
    """The settings, the present one first.

    Args:
        present: what is taken unless another is better.
        foregrounds: the ways to remove the background that there are masks of, the present one among them.
        with_pasted: whether there are images with pasted patches to weigh the stages by.
        largest_sigma: of the blur, pixels.
    """
    sigmas = [factor * present.smoothing_sigma for factor in SIGMA_FACTORS]
    if present.smoothing_sigma == 0:
        sigmas = list(SIGMAS_WITHOUT_BLUR)
    weighted: list[dict[str, object]] = [
        {"stage_weighting": rule} for rule in WEIGHTINGS if with_pasted or rule != "pasted_defects"
    ]
    weighted += [{"stage_weighting": "good_maximum", "emphasis": emphasis} for emphasis in EMPHASES]
    others = [
        FusionSetting.model_validate({**how, "smoothing_sigma": sigma, "foreground": foreground})
        for foreground in (present.foreground, *foregrounds)
        for sigma in sigmas
        if sigma <= largest_sigma
        for how in weighted
    ]
    return tuple(dict.fromkeys([present, *others]))


def weights_of(
    settings: Sequence[FusionSetting],
    distances: list[FloatArray],
    pasted: list[FloatArray] | None,
    *,
    config: FitConfig,
) -> tuple[tuple[float, float, float], ...]:
    """Each setting's stage weights by good images' distance maps, see `train.calibration.weighing.stage_weights`."""
    plain: dict[tuple[str, float], tuple[float, float, float]] = {}
    weights = []
    for setting in settings:
        key = setting.stage_weighting, setting.smoothing_sigma
        if key not in plain:
            plain[key] = stage_weights(distances, pasted, config=setting.applied_to(config))
        emphasised = np.array(plain[key]) * np.array(setting.emphasis)
        same = setting.emphasis == (1.0, 1.0, 1.0) or not emphasised.any()
        weights.append(plain[key] if same else summing_to_3(emphasised))
    return tuple(weights)
