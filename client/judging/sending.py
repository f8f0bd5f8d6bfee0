"""Calls on their way, and which of them a connection waits for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.utils import InferenceServerException

from client.core.errors import RequestError
from client.core.faults import is_refused
from model_repository.grpc_channel import TritonClient
from model_repository.patient_calls import Metadata


class OpenCalls:
    """The calls that a connection is waiting for; none begins once it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: set[object] = set()
        self._closed = False

    def begin(self) -> object:
        """Count a call; the object returned is to be handed to `end`.

        Raises:
            RequestError: the connection is closed.
        """
        call = object()
        with self._changed:
            if self._closed:
                raise RequestError("This JudgeClient is closed; connect anew.")
            self._calls.add(call)
        return call

    def end(self, call: object) -> None:
        """The call has ended; saying so twice does no harm."""
        with self._changed:
            self._calls.discard(call)
            self._changed.notify_all()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """A call for the length of a `with` block."""
        call = self.begin()
        try:
            yield
        finally:
            self.end(call)

    def close(self, *, timeout_s: float) -> None:
        """Let no other call begin, and wait for those that have begun."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._calls, timeout_s)


@dataclass(frozen=True)
class Sent:
    """A request on its way.

    Attributes:
        started_s: when it was sent, of `time.perf_counter`.
        until_s: its deadline, of the same clock.
        arrival: the message that came and when; or the error. Whoever waits for it never cancels it.
    """

    started_s: float
    until_s: float
    arrival: Future[tuple[Any, float]] = field(default_factory=Future)

    def wait(self) -> None:
        """Wait until it has ended, however it did, or its deadline has passed."""
        with contextlib.suppress(TimeoutError):
            self.arrival.exception(timeout=max(0.0, self.until_s - time.perf_counter()))

    @property
    def ended(self) -> bool:
        """Whether it has, however it did."""
        return self.arrival.done()

    @property
    def refused(self) -> bool:
        """Whether it has ended because the server is overloaded."""
        error = self.arrival.exception() if self.arrival.done() else None
        return isinstance(error, InferenceServerException) and is_refused(error)

    def result(self) -> tuple[Any, float]:
        """The message that came, and when.

        Raises:
            InferenceServerException: the call failed, or has not ended yet: then its deadline has passed.
        """
        if not self.arrival.done():
            raise InferenceServerException("Deadline Exceeded", status=str(grpc.StatusCode.DEADLINE_EXCEEDED))
        return self.arrival.result()


@dataclass(frozen=True)
class Pause:
    """A wait before the next try.

    Attributes:
        seconds: of it.
    """

    seconds: float

    def wait(self) -> None:
        """Wait so long."""
        time.sleep(self.seconds)


def send(client: TritonClient, message: Any, *, timeout_s: float, headers: Metadata = ()) -> Sent:
    """Send a `ModelInfer` message with headers, and do not wait for what comes back.

    Raises:
        InferenceServerException: it cannot be sent within the deadline.
    """
    started_s = time.perf_counter()
    sent = Sent(started_s, started_s + timeout_s)

    def settle(call: Any) -> None:
        # In gRPC's own thread. Nothing that can fail unseen: who waits for the answer would wait for ever.
        try:
            sent.arrival.set_result((call.result(), time.perf_counter()))
        except grpc.RpcError as error:
            sent.arrival.set_exception(_as_tritons(error))
        except BaseException as error:
            sent.arrival.set_exception(error)

    try:
        client.infer_later(message, timeout_s=timeout_s, headers=headers).add_done_callback(settle)
    except grpc.RpcError as error:
        raise _as_tritons(error) from None
    return sent


def _as_tritons(error: grpc.RpcError) -> InferenceServerException:
    """gRPC's error as tritonclient gives it."""
    return InferenceServerException(error.details(), str(error.code()), error.debug_error_string())
