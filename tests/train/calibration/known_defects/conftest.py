"""Random distance maps of 32-pixel images: quick, and with whatever in them a test needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from train.calibration.known_defects.judging import Bench
from train.calibration.known_defects.tables import Images, score_tables
from train.checkpoint.known_defects import FusionSetting
from train.config import FitConfig, fit_config
from train.support import progress

CONFIG = fit_config("edge", {"image_size": 32, "stage_weighting": "good_maximum", "false_reject_rate": 0.1})
PRESENT = FusionSetting.of(CONFIG)
# The present setting, each stage alone, and a wide blur of another scale.
SETTINGS = (
    PRESENT,
    *(PRESENT.model_copy(update={"emphasis": alone}) for alone in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))),
    PRESENT.model_copy(update={"emphasis": (1.0, 0, 0), "smoothing_sigma": 8.0}),
)
MakeImages = Callable[..., Images]
MakeBench = Callable[..., Bench]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a line for each of hundreds of tables."""
    monkeypatch.setattr(progress.console, "quiet", True)


@pytest.fixture
def images() -> MakeImages:
    """`images(generator, n)`: stages 2 and 3 vary from image to image; `lift` raises stage 1 by up to as much."""

    def make(generator: np.random.Generator, n_images: int, *, lift: float = 0.0) -> Images:
        distances = []
        for side, sigma, raised in ((8, 0.3, lift), (4, 0.8, 0.0), (2, 0.8, 0.0)):
            level = generator.lognormal(sigma=sigma, size=n_images)[:, None, None]
            stage = level * generator.lognormal(sigma=0.2, size=(n_images, side, side))
            distances.append((stage + raised * generator.random((n_images, 1, 1))).astype(np.float32))
        return Images(distances, {"none": None})

    return make


@pytest.fixture
def bench() -> MakeBench:
    """`bench(good, defects)`, with the settings above."""

    def make(
        good: Images,
        defects: Images,
        *,
        settings: Sequence[FusionSetting] = SETTINGS,
        config: FitConfig = CONFIG,
    ) -> Bench:
        tables = score_tables(good, None, defects, settings=settings, config=config)
        return Bench(settings, tables, good, {"none": None, "threshold": None}, config, "bolt", {})

    return make
