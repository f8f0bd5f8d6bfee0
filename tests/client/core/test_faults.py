"""What failed calls mean, by messages that tritonserver 2.51 gave; test_clients_in_trouble asks the server itself."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from tritonclient.utils import InferenceServerException

from client import ClientError
from client.cli.group import Commands
from client.core.errors import (
    AnswerError,
    BenchmarkError,
    DeadlineExceeded,
    ImageFileError,
    NotAllowed,
    NotServed,
    Overloaded,
    RefusedImage,
    RequestError,
    ServerError,
    ServerFault,
    Unreachable,
)
from client.core.faults import fault_of
from client.files import StorageError
from client.judging.calls import named_error
from tests.products import unused_url

VERIFY = "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED"
SEEN = [
    (
        "INTERNAL",
        "in ensemble 'cup', regions are for images of 210 x 150 pixels; found an anomaly map of 96 x 96",
        RefusedImage,
        False,
    ),
    (
        "INTERNAL",
        "in ensemble 'cup', image 1 of 2 cannot be judged: its foreground mask hides all of it",
        RefusedImage,
        False,
    ),
    (
        "INTERNAL",
        "in ensemble 'cup', image 1 of 2 cannot be judged: its distance maps are not finite",
        ServerFault,
        False,
    ),
    ("UNAVAILABLE", "in ensemble 'pill', Exceeds maximum queue size", Overloaded, True),
    ("UNAVAILABLE", "in ensemble 'pill', Request timeout expired", Overloaded, True),
    ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", NotAllowed, False),
    ("UNAVAILABLE", f"failed to connect to all addresses; last error: {VERIFY}: expired", Unreachable, False),
    ("UNAVAILABLE", "failed to connect to all addresses; ... WRONG_VERSION_NUMBER", Unreachable, False),
    ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped accepting", Unreachable, True),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN", Unreachable, True),
    ("UNAVAILABLE", "Socket closed", Unreachable, True),
    ("UNAVAILABLE", "recvmsg:Connection reset by peer", Unreachable, True),
    ("UNAVAILABLE", "Too many pings", Unreachable, True),
    ("CANCELLED", "CANCELLED", Unreachable, True),
    ("NOT_FOUND", "Request for unknown model: 'pill' has no available versions", NotServed, True),
    ("NOT_FOUND", "Request for unknown model: 'nut' is not found", NotServed, False),
    ("INVALID_ARGUMENT", "in ensemble 'pill_encoded', image 1 of 1: is empty", RefusedImage, False),
    ("INTERNAL", "in ensemble 'pill', Stub process 'pill_student_0_0' is not healthy.", ServerFault, True),
    ("INTERNAL", "in ensemble 'pill', release 7 has no calibration", ServerFault, False),
    ("UNKNOWN", "odd", ServerFault, False),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, False),
    ("UNIMPLEMENTED", "Method not found!", Unreachable, False),
    ("RESOURCE_EXHAUSTED", "Sent message larger than max (9 vs. 4)", ServerFault, False),
]


@pytest.mark.parametrize(("status", "message", "kind", "again"), SEEN)
def test_each_code_and_message(status: str, message: str, kind: type[ServerError], again: bool) -> None:
    error = InferenceServerException(message, status=f"StatusCode.{status}")
    assert (fault_of(error).kind, fault_of(error).again) == (kind, again)
    told = named_error(error, url=unused_url(), timeout_s=3)
    assert type(told) is kind
    assert "\n" not in told.message
    assert told.message.endswith((".", "?"))
    assert str(told) == told.message


def test_the_tree_knows_nothing_of_the_command_line() -> None:
    """A program that catches `ServerError`, or `ClientError`, gets all that it got before."""
    kinds = {Unreachable, Overloaded, DeadlineExceeded, RefusedImage, NotServed, NotAllowed, ServerFault}
    for kind in kinds | {AnswerError}:
        assert issubclass(kind, ServerError)
    for kind in (ServerError, RequestError, ImageFileError, BenchmarkError):
        assert issubclass(kind, ClientError)
    for kind in (ClientError, StorageError):
        assert not issubclass(kind, click.ClickException)


@pytest.mark.parametrize(
    ("error", "exit_code"), [(Overloaded("Full."), 2), (RequestError("No."), 2), (StorageError("Disk."), 2)]
)
def test_a_command_prints_its_error_and_exits_with_its_code(error: Exception, exit_code: int) -> None:
    @click.command()
    def fail() -> None:
        raise error

    done = CliRunner().invoke(Commands(commands=[fail]), ["fail"])
    assert (done.exit_code, done.stderr, done.stdout) == (exit_code, f"Error: {error}\n", "")
