"""What can go wrong between a checkpoint and a published release.

train.errors.UserError
└── ExportError
    ├── VerificationError     a graph does not judge as its checkpoint does
    └── PublishError          a release cannot be put into the repository
"""

from train.errors import UserError


class ExportError(UserError):
    """A graph cannot be written."""


class VerificationError(ExportError):
    """A graph was written and is not what it must be."""


class PublishError(ExportError):
    """A release cannot be published."""
