"""Errors between a checkpoint and a published release.

train.errors.UserError
└── ExportError
    ├── VerificationError     a graph does not judge as its checkpoint does
    └── PublishError          a release cannot be put into the repository
"""

from train.errors import UserError


class ExportError(UserError):
    """A build cannot be made, read or published."""


class VerificationError(ExportError):
    """A graph was written, and it does not judge as its checkpoint does or a runtime does not take it."""


class PublishError(ExportError):
    """A release cannot be published."""
