"""What can go wrong with a user's input, each told in one sentence.

UserError
├── DataError          images, folders, categories
├── WeightsError       pretrained weights that cannot be had
├── CheckpointError    a file that is no checkpoint, or is damaged
├── ConfigError        options that contradict each other
├── TrainingError      a run that went wrong on the way
└── StorageError       a file that cannot be written
"""

import click


class UserError(click.ClickException):
    """A fault in what the user gave; the command line prints it and exits with 1."""


class DataError(UserError):
    """Images, folders or categories are missing or unusable."""


class WeightsError(UserError):
    """Pretrained weights cannot be had."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or not one of ours."""


class ConfigError(UserError):
    """Options are out of range or contradict each other."""


class TrainingError(UserError):
    """A run cannot go on: its loss is no number."""


class StorageError(UserError):
    """A file cannot be written: a full disk, say. What stood there stays."""
