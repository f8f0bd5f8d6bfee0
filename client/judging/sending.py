"""Requests to the server and its answers: sent again where that helps, within their deadline, and never lost."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.judging.answers import Answer, read_answer
from client.judging.errors import RequestError, ServerError
from client.judging.faults import is_refused, is_region_unknown, is_unloaded, is_unreachable, overload_error
from client.judging.requests import Request

FIRST_WAIT_S = 0.005  # before a refused request is sent again; doubled with each refusal
DOUBLINGS = 10
LONGEST_WAIT_S = 0.5
RECONNECT_WAIT_S = 0.05
RECONNECT_S = 1.0  # in which a channel notices that a server is there again
MOST_LOADS = 3  # of one request's category; others may want its place in memory too
GRACE_S = 5.0  # gRPC ends a call at its deadline; that it has done so is known by then


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
        request: what was sent.
        started_s: when, of `time.perf_counter`.
        until_s: its deadline, of the same clock.
        arrival: the result and when it came; or the error.
    """

    request: Request
    started_s: float
    until_s: float
    arrival: Future[tuple[grpcclient.InferResult, float]] = field(default_factory=Future)

    def wait(self) -> bool:
        """Wait until it has ended, however it did; says whether it has."""
        with contextlib.suppress(TimeoutError):
            self.arrival.exception(timeout=max(0.0, self.until_s - time.perf_counter()) + GRACE_S)
        return self.arrival.done()

    @property
    def refused(self) -> bool:
        """Whether it has ended because the server is overloaded."""
        error = self.arrival.exception() if self.arrival.done() else None
        return isinstance(error, InferenceServerException) and is_refused(error)


class Sender:
    """Sends requests over one channel; threads may share it.

    A request that an overloaded server refuses is sent again until its deadline; so is one whose category has just been
    unloaded, if the sender may load it, and one whose shared memory a server that was started again does not know.
    """

    def __init__(
        self,
        client: grpcclient.InferenceServerClient,
        *,
        url: str,
        load: Callable[[], None] | None,
        calls: OpenCalls,
    ) -> None:
        """Send through a channel to `url`; `load` loads the category, and None forbids that; `calls` counts calls."""
        self._client, self._url, self._load, self._calls = client, url, load, calls

    def send(self, request: Request, *, timeout_s: float) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            InferenceServerException: the call failed.
            ServerError: the server is overloaded until the deadline, or its answer is no verdict.
        """
        return self._try_until(request, None, started_s=time.perf_counter(), timeout_s=timeout_s)

    def send_later(self, request: Request, *, timeout_s: float) -> Sent:
        """Send a request and do not wait; `receive` its answer."""
        started_s = time.perf_counter()
        sent = Sent(request, started_s, started_s + timeout_s)
        call = self._calls.begin()

        def settle(result: grpcclient.InferResult, error: InferenceServerException | None) -> None:
            # Nothing that can fail: who waits for the answer would wait for ever.
            if error is not None:
                sent.arrival.set_exception(error)
            else:
                sent.arrival.set_result((result, time.perf_counter()))
            self._calls.end(call)

        try:
            self._client.async_infer(callback=settle, **request.arguments(timeout_s=timeout_s))
        except BaseException:
            self._calls.end(call)
            raise
        return sent

    def receive(self, sent: Sent, *, timeout_s: float) -> Answer:
        """The answer to a request that was sent before; one that was refused gets a deadline of its own from now on.

        Raises:
            InferenceServerException, ServerError: as `send`.
        """
        if not sent.wait():
            raise ServerError(
                f"No answer from {self._url} within {timeout_s:g} s, and no end of the call either."
            )
        error = sent.arrival.exception()
        if error is None:
            result, arrived_s = sent.arrival.result()
            return read_answer(sent.request, result, latency_ms=1000 * (arrived_s - sent.started_s))
        if not isinstance(error, InferenceServerException):
            raise error
        return self._try_until(sent.request, error, started_s=sent.started_s, timeout_s=timeout_s)

    def _try_until(
        self,
        request: Request,
        error: InferenceServerException | None,
        *,
        started_s: float,
        timeout_s: float,
    ) -> Answer:
        """Send a request, whose last try ended with `error`, until it is answered or `timeout_s` are over."""
        mending = _Mending(request, self._load, url=self._url, timeout_s=timeout_s)
        while True:
            if error is not None:
                mending.mend(error)
            try:
                result = self._client.infer(**request.arguments(timeout_s=mending.left_s))
            except InferenceServerException as fault:
                error = fault
            else:
                latency_ms = 1000 * (time.perf_counter() - started_s)
                return read_answer(request, result, latency_ms=latency_ms)


class _Mending:
    """What is done between the tries of one request, and how much of its time is left."""

    def __init__(
        self, request: Request, load: Callable[[], None] | None, *, url: str, timeout_s: float
    ) -> None:
        self._request, self._load, self._url, self._timeout_s = request, load, url, timeout_s
        self._until_s = time.perf_counter() + timeout_s
        self._reconnect_until_s = time.perf_counter() + min(RECONNECT_S, timeout_s)
        self._refusals = self._loads = 0
        self._registered = False

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self._until_s - time.perf_counter()

    def mend(self, error: InferenceServerException) -> None:
        """Remove what the last try failed for, or raise it."""
        if is_refused(error):
            self._wait(error)
        elif is_unloaded(error) and self._load is not None and self._loads < MOST_LOADS:
            self._loads += 1
            began_s = time.perf_counter()
            self._load()
            self._until_s += time.perf_counter() - began_s  # loading has a deadline of its own
        elif is_region_unknown(error) and self._request.region is not None and not self._registered:
            self._request.region.register()
            self._registered = True
        elif is_unreachable(error) and time.perf_counter() + RECONNECT_WAIT_S < self._reconnect_until_s:
            time.sleep(RECONNECT_WAIT_S)
        else:
            raise error

    def _wait(self, error: InferenceServerException) -> None:
        wait_s = min(FIRST_WAIT_S * 2 ** min(self._refusals, DOUBLINGS), LONGEST_WAIT_S, self._timeout_s / 10)
        self._refusals += 1
        # Clients that were refused together do not come back together.
        wait_s *= random.uniform(0.5, 1)
        if wait_s >= self.left_s:
            raise overload_error(
                str(error.message()), url=self._url, refusals=self._refusals, timeout_s=self._timeout_s
            )
        time.sleep(wait_s)
