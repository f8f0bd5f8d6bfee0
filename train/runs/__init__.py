"""runs/<category>/: a checkpoint, its measures and their report, each made unless it is up to date.

`record` is what a run is made of and how two of them differ, `folder` where its files lie while it is unfinished, when
it is finished and when another one has taken its place. `images` finds the images that a run remembers, `sizing`
the size for `--image-size auto`, and `known_defects` the defects, by which it chooses anew without a training.
`training` and `evaluation` do what is left to do.

Importing torch takes seconds, so it is imported only where something has to be fitted or evaluated: a `make export`
that finds everything up to date never imports it.
"""

from train.runs.evaluation import (
    evaluate_category,
    fit_and_evaluate,
    metrics_are_up_to_date,
    require_checkpoint,
)
from train.runs.images import remembered_images, tell_not_aligned
from train.runs.known_defects import find_known_defects
from train.runs.sizing import with_image_size
from train.runs.training import data_fingerprints, fit_category

__all__ = [
    "data_fingerprints",
    "evaluate_category",
    "find_known_defects",
    "fit_and_evaluate",
    "fit_category",
    "metrics_are_up_to_date",
    "remembered_images",
    "require_checkpoint",
    "tell_not_aligned",
    "with_image_size",
]
