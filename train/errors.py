"""What can go wrong with a user's input; each error says what was found, what was expected and what to do.

UserError
├── DataError          images, folders, categories
├── WeightsError       pretrained weights that are missing or do not fit
├── CheckpointError    a file that is no checkpoint, or is damaged
├── RunError           a run in the way: made otherwise, or at work in another process
├── ConfigError        options that contradict each other
├── RegionsError       a file of regions that cannot be used, or not for these pictures
├── TrainingError      losses, gradients, features or weights that are not finite
├── NotFiniteError     distances, maps or scores that are not finite
└── StorageError       a file that cannot be read or written
"""

import click


class UserError(click.ClickException):
    """A fault in what the user gave; the command line prints it and exits with 1."""


class DataError(UserError):
    """Images, folders or categories are missing or unusable."""


class WeightsError(UserError):
    """Pretrained weights are missing, damaged or another network's."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or not one of ours."""


class RunError(UserError):
    """A category's run is in the way: it was made otherwise than asked for, or another process is at work on it."""


class ConfigError(UserError):
    """Options are out of range or contradict each other."""


class RegionsError(UserError):
    """Regions cannot be read, or do not hold for the pictures; the command line exits with 2, as for other options."""

    exit_code = 2


class TrainingError(UserError):
    """A run cannot go on: its losses, gradients, features or weights are NaN or infinite."""


class NotFiniteError(UserError):
    """Distances, anomaly maps or scores are NaN or infinite: nothing can be judged or measured by them."""


class StorageError(UserError):
    """A file cannot be read or written, on a full disk for example. The file that it would have replaced stays."""
