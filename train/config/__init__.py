"""The configuration of a training run: `fit_config` is all of its fields, `presets` the two sets to start from.

`regions` is what is drawn on a picture of the category: where to inspect it, and what to ignore.
"""

from train.config.fit_config import FitConfig
from train.config.presets import PRESETS, changed_config, field_text, fit_config, refuse_native
from train.config.regions import DrawnRegions

__all__ = [
    "PRESETS",
    "DrawnRegions",
    "FitConfig",
    "changed_config",
    "field_text",
    "fit_config",
    "refuse_native",
]
