"""The configuration of a training run: `fit_config` is all of its fields, `presets` the two sets to start from."""

from train.config.fit_config import FitConfig
from train.config.presets import PRESETS, changed_config, field_text, fit_config, require_one_size

__all__ = ["PRESETS", "FitConfig", "changed_config", "field_text", "fit_config", "require_one_size"]
