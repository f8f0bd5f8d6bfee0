"""What a failed call means: gRPC's status code decides, and Triton's words where it has one code for several things.

    code               in the message                       error             again  seen when
    UNAVAILABLE        maximum queue size, timeout expired  Overloaded        yes    a queue is full, a request late
                       protocol is restricted               NotAllowed        no     a key is missing or wrong
                       CERTIFICATE_VERIFY_FAILED, ...       Unreachable       no     it is not who it should be
                       Server is stopping, not ready        Unreachable       yes    it is being stopped
                       gRPC's own                           Unreachable       yes    nobody is there, connection lost
    CANCELLED                                               Unreachable       yes    it dropped the call as it stopped
    NOT_FOUND          no available versions                NotServed         yes    a model is loaded anew, or unloaded
                       anything else                        NotServed         no     there is no such model
    INVALID_ARGUMENT                                        RefusedImage      no     a file is damaged, a shape wrong
    INTERNAL           Stub process ... is not healthy      ServerFault       yes    a step's process has died
    DEADLINE_EXCEEDED                                       DeadlineExceeded  no     the deadline passed
    UNIMPLEMENTED                                           Unreachable       no     it is no Triton server
    any other                                               ServerFault       no     a step failed

Asked again is only where nothing was judged, or where nobody knows: to judge an image twice does no harm.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from tritonclient.utils import InferenceServerException

from client.judging.errors import (
    DeadlineExceeded,
    NotAllowed,
    NotServed,
    Overloaded,
    RefusedImage,
    ServerError,
    ServerFault,
    Unreachable,
)
from model_repository.grpc_channel import split_url, through_proxy
from model_repository.tls_faults import FOR_GOOD, tls_fault

# In Triton's messages.
REFUSED = ("maximum queue size", "timeout expired")
RESTRICTED = "protocol is restricted"
STOPPING = ("Server is stopping", "not ready")
BETWEEN_VERSIONS = "no available versions"
STEP_DIED = ("Stub process", "is not healthy")
UNLOADED = ("unknown model", "not ready")
REGION_UNKNOWN = "Unable to find shared memory region"  # it was registered with another run of the server
NO_REQUEST_ID = "[request id: <id_unknown>] "
# In gRPC's: it never got to a server; the connection ended.
NEVER_THERE = ("failed to connect", "resolving", "resolution", "Failed to create", "HTTP proxy")
CLOSED = ("Socket closed", "onnection reset", "Broken pipe", "GOAWAY")
PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Fault:
    """What a failed call means.

    Attributes:
        kind: the error that it is.
        again: whether asking again may help.
    """

    kind: type[ServerError]
    again: bool = False


def fault_of(error: InferenceServerException) -> Fault:
    """What a failed call means, by the table above."""
    status, message = str(error.status()).removeprefix("StatusCode."), str(error.message())
    if status == "UNAVAILABLE":
        return _unavailable(message)
    if status == "CANCELLED":  # by the server, for this client never does
        return Fault(Unreachable, again=True)
    if status == "NOT_FOUND":
        return Fault(NotServed, again=BETWEEN_VERSIONS in message)
    if status == "INTERNAL":
        return Fault(ServerFault, again=all(words in message for words in STEP_DIED))
    kinds: dict[str, type[ServerError]] = {
        "INVALID_ARGUMENT": RefusedImage,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "UNIMPLEMENTED": Unreachable,
    }
    return Fault(kinds.get(status, ServerFault))


def _unavailable(message: str) -> Fault:
    if any(words in message for words in REFUSED):
        return Fault(Overloaded, again=True)
    if RESTRICTED in message:
        return Fault(NotAllowed)
    return Fault(Unreachable, again=not any(words in message for words in FOR_GOOD))


def server_error(error: InferenceServerException, *, url: str, timeout_s: float) -> ServerError:
    """What a failed call with a deadline of `timeout_s` seconds means, and what to do about it."""
    kind = fault_of(error).kind
    message = str(error.message()).removeprefix(NO_REQUEST_ID).rstrip(". ")
    if kind is DeadlineExceeded:
        return late_error(url=url, timeout_s=timeout_s)
    if kind is Overloaded:
        return overload_error(message, url=url, refusals=1, timeout_s=timeout_s)
    if kind is NotAllowed:
        return NotAllowed(
            f"The server at {url} takes this call only with a key ({message}); give the key with --key-file."
        )
    if kind is Unreachable:
        return Unreachable(_why_unreachable(error, message, url=url))
    return kind(f"The server at {url} answered: {message}.")


def is_refused(error: InferenceServerException) -> bool:
    """Whether an overloaded server has refused a request, which may be sent again."""
    return fault_of(error).kind is Overloaded


def is_unloaded(error: InferenceServerException) -> bool:
    """Whether the server has the category no longer in memory."""
    return any(words in str(error.message()) for words in UNLOADED)


def is_region_unknown(error: InferenceServerException) -> bool:
    """Whether the server does not know a region of shared memory; it was started again since that was registered."""
    return REGION_UNKNOWN in str(error.message())


def is_misfit(error: InferenceServerException) -> bool:
    """Whether the images do not fit the model, which may have been published anew."""
    return fault_of(error).kind is RefusedImage


def late_error(*, url: str, timeout_s: float) -> DeadlineExceeded:
    """That no answer came within a deadline."""
    return DeadlineExceeded(
        f"No answer from {url}{through_proxy(url)} within {timeout_s:g} s; is it overloaded?"
    )


def overload_error(message: str, *, url: str, refusals: int, timeout_s: float) -> Overloaded:
    """That a server has refused a request until its deadline."""
    count = "" if refusals == 1 else f" {refusals} times within {timeout_s:g} s"
    reason = message.rstrip(". ")
    return Overloaded(
        f"The server at {url} is overloaded and refused the request{count} ({reason}); send fewer at a time."
    )


def _why_unreachable(error: InferenceServerException, message: str, *, url: str) -> str:
    if "UNIMPLEMENTED" in str(error.status()):
        return f"What answers at {url}{through_proxy(url)} is no Triton server ({message})."
    if any(words in message for words in STOPPING):
        return (
            f"The server at {url} is being stopped or started and takes no requests ({message}); ask again."
        )
    if fault := tls_fault(message, url=url):
        return fault
    if any(words in message for words in NEVER_THERE):
        return _never_there(url, message)
    return f"The connection to {url} ended before the answer came; was the server stopped? Ask again."


def _never_there(url: str, message: str) -> str:
    """Why gRPC did not get to a server."""
    if through := through_proxy(url):
        host = split_url(url)[0]
        return (
            f"No Triton server answers at {url}{through}; start one with `make serve`, or add {host} "
            "to no_proxy if it is reached directly."
        )
    if any(words in message for words in CLOSED):
        if _speaks_http(url):
            return (
                f"{url} speaks HTTP and not gRPC; give Triton's gRPC port, which is 8001 unless the server was started "
                "with another one."
            )
        return (
            f"{url} closes every connection, so that no gRPC is spoken there; give Triton's gRPC port. If that speaks "
            "TLS, it may ask for --tls-ca, or --tls-cert and --tls-key too."
        )
    return f"No Triton server answers at {url}; start one with `make serve`."


def _speaks_http(url: str) -> bool:
    connection = http.client.HTTPConnection(*split_url(url), timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
