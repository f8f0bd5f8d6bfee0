"""Requests to the server and its answers: sent again where that helps, within their deadline, and never lost."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.judging.answers import Answer, read_answer
from client.judging.errors import RequestError, Unreachable
from client.judging.faults import fault_of, is_refused, is_region_unknown, is_unloaded, late_error
from client.judging.requests import Request
from client.judging.retries import Retries

MOST_LOADS = 3  # of one request's category; others may want its place in memory too
GRACE_S = 5.0  # in which who waits for an answer has learnt of its deadline


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
        give_up: to be called when nobody waits for the answer any more; the call goes on.
        arrival: the result and when it came; or the error.
    """

    request: Request
    started_s: float
    until_s: float
    give_up: Callable[[], None]
    arrival: Future[tuple[grpcclient.InferResult, float]] = field(default_factory=Future)

    def wait(self) -> bool:
        """Wait until it has ended, however it did, or its deadline has passed; says whether it has ended."""
        with contextlib.suppress(TimeoutError):
            self.arrival.exception(timeout=max(0.0, self.until_s - time.perf_counter()))
        if not self.arrival.done():
            self.give_up()
        return self.arrival.done()

    @property
    def refused(self) -> bool:
        """Whether it has ended because the server is overloaded."""
        error = self.arrival.exception() if self.arrival.done() else None
        return isinstance(error, InferenceServerException) and is_refused(error)


class Sender:
    """Sends requests over one channel; threads may share it.

    A request is sent again until its deadline where the server refused it, is being started again, or was lost before
    the answer (`faults`); so is one whose category has just been unloaded, if the sender may load it, and one whose
    shared memory a server that was started again does not know. Its last try may be judged after the deadline: nobody
    learns of that, and no other request gets its answer.
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
            ServerError: no answer within the deadline, or it is no verdict.
        """
        return self._try_until(request, None, started_s=time.perf_counter(), timeout_s=timeout_s)

    def send_later(self, request: Request, *, timeout_s: float) -> Sent:
        """Send a request and do not wait; `receive` its answer."""
        started_s = time.perf_counter()
        call = self._calls.begin()
        sent = Sent(request, started_s, started_s + timeout_s, give_up=lambda: self._calls.end(call))

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
        """The answer to a request that was sent before; one that failed gets a budget of its own from now on.

        Raises:
            InferenceServerException, ServerError: as `send`.
        """
        if not sent.wait():
            raise late_error(url=self._url, timeout_s=timeout_s)
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
        retries = Retries(url=self._url, timeout_s=timeout_s)
        mending = _Mending(request, self._load, retries)
        while True:
            if error is not None and not mending.can_mend(error):
                if request.region is not None and fault_of(error).kind is Unreachable:
                    request.region.in_doubt = True
                retries.wait(error)
            try:
                mending.mend()
                result = self._client.infer(**request.arguments(timeout_s=retries.left_s))
            except InferenceServerException as fault:
                error = fault
            else:
                latency_ms = 1000 * (time.perf_counter() - started_s)
                return read_answer(request, result, latency_ms=latency_ms)


class _Mending:
    """What is done before the next try of one request, where waiting alone does not help."""

    def __init__(self, request: Request, load: Callable[[], None] | None, retries: Retries) -> None:
        self._request, self._load, self._retries = request, load, retries
        self._loads = 0
        self._registered = False
        self._next: Callable[[], None] = _nothing

    def can_mend(self, error: InferenceServerException) -> bool:
        """Whether `mend` will remove what the last try failed for."""
        if is_unloaded(error) and self._load is not None and self._loads < MOST_LOADS:
            self._loads += 1
            self._next = functools.partial(self._load_category, self._load)
        elif is_region_unknown(error) and self._request.region is not None and not self._registered:
            self._registered = True
            self._next = self._request.region.register
        return self._next is not _nothing

    def mend(self) -> None:
        """Do it, if there is something to do.

        Raises:
            InferenceServerException: it failed.
        """
        mend, self._next = self._next, _nothing
        mend()

    def _load_category(self, load: Callable[[], None]) -> None:
        began_s = time.perf_counter()
        load()
        self._retries.extend(time.perf_counter() - began_s)  # loading has a deadline of its own


def _nothing() -> None:
    """Nothing is to be mended."""
