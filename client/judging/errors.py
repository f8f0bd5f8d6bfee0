"""What can go wrong between an image and its verdict, each in one sentence.

ClientError
├── RequestError       what was asked for is not possible, whatever the server
├── ServerError        no server, no such category, no answer in time
│   └── AnswerError    an answer that is no verdict
├── ImageFileError     a path that is no image, or a value that is none
└── BenchmarkError     a benchmark that cannot run here
"""

from __future__ import annotations

import click


class ClientError(click.ClickException):
    """A fault in what the user asked for, or in the server's answer."""


class RequestError(ClientError):
    """A timeout, threshold, number or address that cannot be; nothing was sent."""

    exit_code = 2


class ServerError(ClientError):
    """The server cannot be reached, does not have the category, or did not answer."""


class AnswerError(ServerError):
    """The server's answer is no verdict: not finite, of another shape, or contradicting itself."""


class ImageFileError(ClientError):
    """A path that is missing or no readable image, or a value that is no image."""


class BenchmarkError(ClientError):
    """The benchmark cannot run on this machine."""
