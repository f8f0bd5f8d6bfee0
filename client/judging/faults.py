"""What a failed call means, in one sentence."""

from __future__ import annotations

import http.client

from tritonclient.utils import InferenceServerException

from client.judging.errors import ServerError
from model_repository.grpc_channel import split_url, through_proxy

# In gRPC's messages: it never got to a server; the connection ended.
UNREACHABLE = ("failed to connect", "resolving", "resolution", "Failed to create", "HTTP proxy")
CLOSED = ("Socket closed", "onnection reset", "Broken pipe", "GOAWAY")
# In Triton's messages: of a full queue and of a late request; of a model that has just been unloaded; of shared memory
# that was registered with another run of the server.
REFUSED = ("maximum queue size", "timeout expired")
UNLOADED = ("unknown model", "not ready")
REGION_UNKNOWN = "Unable to find shared memory region"
NO_REQUEST_ID = "[request id: <id_unknown>] "
PROBE_TIMEOUT_S = 2.0


def server_error(error: InferenceServerException, *, url: str, timeout_s: float) -> ServerError:
    """What a failed call with a deadline of `timeout_s` seconds means, and what to do about it."""
    status, message = str(error.status()), str(error.message()).removeprefix(NO_REQUEST_ID).rstrip(". ")
    if "DEADLINE_EXCEEDED" in status:
        return ServerError(
            f"No answer from {url}{through_proxy(url)} within {timeout_s:g} s; is it overloaded?"
        )
    if is_refused(error):
        return overload_error(message, url=url, refusals=1, timeout_s=timeout_s)
    if is_unreachable(error):
        return ServerError(_unreachable(url, message))
    if "UNAVAILABLE" in status and any(fault in message for fault in CLOSED):
        return ServerError(
            f"The connection to {url} ended before the answer came; was the server stopped? Ask again."
        )
    if "UNIMPLEMENTED" in status:
        return ServerError(f"What answers at {url}{through_proxy(url)} is no Triton server ({message}).")
    return ServerError(f"The server at {url} answered: {message}.")


def is_refused(error: InferenceServerException) -> bool:
    """Whether an overloaded server has refused a request, which may be sent again."""
    return any(words in str(error.message()) for words in REFUSED)


def is_unreachable(error: InferenceServerException) -> bool:
    """Whether a request did not get to a server at all."""
    return "UNAVAILABLE" in str(error.status()) and any(
        words in str(error.message()) for words in UNREACHABLE
    )


def is_unloaded(error: InferenceServerException) -> bool:
    """Whether the server has the category no longer in memory."""
    return any(words in str(error.message()) for words in UNLOADED)


def is_region_unknown(error: InferenceServerException) -> bool:
    """Whether the server does not know a region of shared memory; it was started again since that was registered."""
    return REGION_UNKNOWN in str(error.message())


def is_misfit(error: InferenceServerException) -> bool:
    """Whether the images do not fit the model, which may have been published anew."""
    return "INVALID_ARGUMENT" in str(error.status())


def overload_error(message: str, *, url: str, refusals: int, timeout_s: float) -> ServerError:
    """That a server has refused a request until its deadline."""
    count = "" if refusals == 1 else f" {refusals} times within {timeout_s:g} s"
    reason = message.rstrip(". ")
    return ServerError(
        f"The server at {url} is overloaded and refused the request{count} ({reason}); send fewer at a time."
    )


def _unreachable(url: str, message: str) -> str:
    """Why gRPC did not get to a server."""
    if through := through_proxy(url):
        host = split_url(url)[0]
        return (
            f"No Triton server answers at {url}{through}; start one with `make serve`, or add {host} "
            "to no_proxy if it is reached directly."
        )
    if any(fault in message for fault in CLOSED):
        if _speaks_http(url):
            return (
                f"{url} speaks HTTP and not gRPC; give Triton's gRPC port, which is 8001 unless the server was started "
                "with another one."
            )
        return f"{url} closes every connection, so that no gRPC is spoken there; give Triton's gRPC port, without TLS."
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
