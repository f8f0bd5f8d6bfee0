"""What can go wrong between an image and its verdict, each in one sentence.

ClientError
├── ServerError        no server, no such category, no answer in time
├── ImageFileError     a path that is no image
└── BenchmarkError     a benchmark that cannot run here
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tritonclient.utils import InferenceServerException

UNREACHABLE = ("onnect", "resolving", "resolution")  # in gRPC's message when it never reached the server
# In Triton's message of a full queue and of a late request.
REFUSALS = ("maximum queue size", "timeout expired")


class ClientError(click.ClickException):
    """A fault in what the user asked for, or in the server's answer."""


class ServerError(ClientError):
    """The server cannot be reached, does not have the category, or did not answer."""


class ImageFileError(ClientError):
    """A path that is missing or no readable image."""


class BenchmarkError(ClientError):
    """The benchmark cannot run on this machine."""


def server_error(error: InferenceServerException, *, url: str, timeout_s: float) -> ServerError:
    """What a failed call with a deadline of `timeout_s` seconds means, and what to do about it."""
    status, message = str(error.status()), str(error.message())
    if "DEADLINE_EXCEEDED" in status:
        return ServerError(f"No answer from {url} within {timeout_s:g} s; is it overloaded?")
    if "UNAVAILABLE" in status and any(fault in message for fault in UNREACHABLE):
        return ServerError(f"No Triton server answers at {url}; start one with `make serve`.")
    if any(refusal in message for refusal in REFUSALS):
        return ServerError(
            f"The server at {url} is overloaded and refused the request ({message.rstrip('. ')}); send fewer at a time."
        )
    return ServerError(f"The server at {url} answered: {message.rstrip('. ')}.")
