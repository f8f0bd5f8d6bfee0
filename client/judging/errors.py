"""What can go wrong between an image and its verdict, each told in one sentence.

ClientError
├── ServerError        no server, no such category, no answer in time
├── ImageFileError     a path that is no image
└── BenchmarkError     a benchmark that cannot run here
"""

import click


class ClientError(click.ClickException):
    """A fault in what the user asked for, or in the server's answer."""


class ServerError(ClientError):
    """The server is not there, does not have the category, or did not answer."""


class ImageFileError(ClientError):
    """A path that is missing or no readable image."""


class BenchmarkError(ClientError):
    """The benchmark cannot run on this machine."""
