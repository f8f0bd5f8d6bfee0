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
    INVALID_ARGUMENT                                        RefusedImage      no     a file is damaged, a shape wrong,
                                                                                     nothing of the part is left
    INTERNAL           foreground, regions                  RefusedImage      no     the same, of an older server
    INTERNAL           Stub process ... is not healthy      ServerFault       yes    a step's process has died
    DEADLINE_EXCEEDED                                       DeadlineExceeded  no     the deadline passed
    UNIMPLEMENTED                                           Unreachable       no     it is no Triton server
    any other                                               ServerFault       no     a step failed

Asked again is only where nothing was judged, or where nobody knows: to judge an image twice does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.utils import InferenceServerException

from client.core.errors import (
    ClientError,
    DeadlineExceeded,
    ImageFileError,
    NotAllowed,
    NotServed,
    OtherSizeError,
    Overloaded,
    RefusedImage,
    ServerError,
    ServerFault,
    Unreachable,
)
from model_repository.grpc_channel import split_url
from model_repository.tls_faults import FOR_GOOD, tls_fault

# In Triton's messages.
REFUSED = ("maximum queue size", "timeout expired")
RESTRICTED = "protocol is restricted"
STOPPING = ("Server is stopping", "not ready")
BETWEEN_VERSIONS = "no available versions"
STEP_DIED = ("Stub process", "is not healthy")
UNLOADED = ("unknown model", "not ready")
REGION_UNKNOWN = "Unable to find shared memory region"  # it was registered with another run of the server
OTHER_SHAPE = "unexpected shape for input"
REGION_TOO_SMALL = "bytes to hold the results"  # in shared memory: a new release's maps are larger
ONE_IMAGE = "cannot be judged"  # its values are not finite
# What is the image's fault, which servers of before do not say: nothing of it is left, or its own size is another.
OF_THE_IMAGE = ("its foreground mask hides", "its foreground lies in none", "regions are for images of")
NO_REQUEST_ID = "[request id: <id_unknown>] "
# In gRPC's: it never got to a server; the connection ended.
NEVER_THERE = ("failed to connect", "resolving", "resolution", "Failed to create", "HTTP proxy")
CLOSED = ("Socket closed", "onnection reset", "Broken pipe", "GOAWAY")


@dataclass(frozen=True)
class Peer:
    """Who is asked, for messages.

    Attributes:
        url: host:port of the server's gRPC endpoint.
        through: the proxy on the way, see `grpc_channel.through_proxy`; empty where there is none.
    """

    url: str
    through: str = ""

    def __str__(self) -> str:
        return f"{self.url}{self.through}"


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
    if status == "INTERNAL" and any(words in message for words in OF_THE_IMAGE):
        return Fault(RefusedImage)
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


def server_error(
    error: InferenceServerException, peer: Peer, *, timeout_s: float, speaks_http: bool = False
) -> ServerError:
    """What a failed call with a deadline of `timeout_s` seconds means, and what to do about it.

    Args:
        error: of the call.
        peer: who was asked.
        timeout_s: the call's deadline.
        speaks_http: what closes the connections there speaks HTTP, see `closes_connections`.
    """
    kind = fault_of(error).kind
    message = str(error.message()).removeprefix(NO_REQUEST_ID).rstrip(". ")
    if kind is DeadlineExceeded:
        return late_error(peer, timeout_s=timeout_s)
    if kind is Overloaded:
        return overload_error(message, peer, refusals=1, timeout_s=timeout_s)
    if kind is NotAllowed:
        return NotAllowed(
            f"The server at {peer.url} takes this call only with a key ({message}); give the key with --key-file."
        )
    if kind is Unreachable:
        return Unreachable(_why_unreachable(error, message, peer, speaks_http=speaks_http))
    return kind(f"The server at {peer.url} answered: {message}.")


def closes_connections(error: InferenceServerException) -> bool:
    """Whether somebody is there who ends every connection, so that it is worth finding out what it speaks."""
    message = str(error.message())
    return any(words in message for words in NEVER_THERE) and any(words in message for words in CLOSED)


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
    return fault_of(error).kind is RefusedImage or REGION_TOO_SMALL in str(error.message())


def is_of_another_size(error: Exception) -> bool:
    """Whether a release of another image size has answered, which need not be the live one any more."""
    if isinstance(error, InferenceServerException):
        message = str(error.message())
        return OTHER_SHAPE in message or REGION_TOO_SMALL in message
    return isinstance(error, OtherSizeError)


def is_of_one_image(error: ClientError) -> bool:
    """Whether one image of a request failed, so that the others may be judged without it."""
    return isinstance(error, RefusedImage | ImageFileError) or ONE_IMAGE in error.message


def late_error(peer: Peer, *, timeout_s: float) -> DeadlineExceeded:
    """That no answer came within a deadline."""
    return DeadlineExceeded(f"No answer from {peer} within {timeout_s:g} s; is it overloaded?")


def overload_error(message: str, peer: Peer, *, refusals: int, timeout_s: float) -> Overloaded:
    """That a server has refused a request until its deadline."""
    count = "" if refusals == 1 else f" {refusals} times within {timeout_s:g} s"
    reason = message.rstrip(". ")
    return Overloaded(
        f"The server at {peer.url} is overloaded and refused the request{count} ({reason}); send fewer at a time."
    )


def _why_unreachable(error: InferenceServerException, message: str, peer: Peer, *, speaks_http: bool) -> str:
    if "UNIMPLEMENTED" in str(error.status()):
        return f"What answers at {peer} is no Triton server ({message})."
    if any(words in message for words in STOPPING):
        return f"The server at {peer.url} is being stopped or started and takes no requests ({message}); ask again."
    if fault := tls_fault(message, url=peer.url):
        return fault
    if any(words in message for words in NEVER_THERE):
        return _never_there(peer, message, speaks_http=speaks_http)
    return f"The connection to {peer.url} ended before the answer came; was the server stopped? Ask again."


def _never_there(peer: Peer, message: str, *, speaks_http: bool) -> str:
    """Why gRPC did not get to a server."""
    if peer.through:
        host = split_url(peer.url)[0]
        return (
            f"No Triton server answers at {peer}; start one with `make serve`, or add {host} "
            "to no_proxy if it is reached directly."
        )
    if any(words in message for words in CLOSED):
        if speaks_http:
            return (
                f"{peer.url} speaks HTTP and not gRPC; give Triton's gRPC port, which is 8001 unless the server was "
                "started with another one."
            )
        return (
            f"{peer.url} closes every connection, so that no gRPC is spoken there; give Triton's gRPC port. If that "
            "speaks TLS, it may ask for --tls-ca, or --tls-cert and --tls-key too."
        )
    return f"No Triton server answers at {peer.url}; start one with `make serve`."
