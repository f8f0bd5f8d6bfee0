"""Calls over a gRPC channel that are waited for within a deadline, and never cancelled.

    tritonclient's client  ->  PatientChannel  ->  gRPC's own channel, without any deadline
                                     `- open calls: those whose end has not come; late ones are nobody's any more

tritonserver 2.51 dies of calls that are cancelled (upstream #7840). gRPC cancels a call when its deadline passes, when
its channel is closed, and when Python throws its object away. So the deadline is kept here: who asked stops waiting,
and the call goes on until the server answers. A channel is closed once its last call has ended. A process may end at
any time: a connection that is lost does the server no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import grpc

MOST_LATE = 64  # calls; a server that answers none of so many would only be given more to hold

Metadata = Iterable[tuple[str, str]]


class DeadlinePassed(grpc.RpcError):  # type: ignore[misc]
    """A call whose end has not come in time; it goes on."""

    def __init__(self, details: str = "Deadline Exceeded") -> None:
        super().__init__(details)
        self._details = details

    def code(self) -> grpc.StatusCode:
        """As of a call that gRPC itself ends at its deadline."""
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        """What happened."""
        return self._details

    def debug_error_string(self) -> str:
        """Nothing more is known."""
        return self._details


class PatientChannel:
    """A gRPC channel of which no call is ever cancelled; threads may share it."""

    def __init__(self, channel: grpc.Channel, *, metadata: Metadata = ()) -> None:
        """Make calls over `channel`; `metadata` is sent with each of them."""
        self._channel, self._metadata = channel, tuple(metadata)
        self._changed = threading.Condition()
        self._open: dict[Any, float] = {}  # when each call is late, of `time.monotonic`
        self._closing = False

    def unary_unary(self, *method: Any, **options: Any) -> PatientCall:
        """A method with one request and one answer, as gRPC's own channel gives it."""
        return PatientCall(self, self._channel.unary_unary(*method, **options))

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        """A method with streams, which no program here uses; its calls are gRPC's own."""
        return self._channel.stream_stream(*method, **options)

    @property
    def has_room(self) -> bool:
        """Whether a call would begin at once: fewer than MOST_LATE are late, or the channel is closed."""
        with self._changed:
            return self._has_room()

    def close(self) -> None:
        """Close the channel when its last call has ended; no other begins."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            idle = not self._open
        if idle:
            self._channel.close()

    def begin(self, start: Any, *, timeout_s: float | None, metadata: Metadata | None) -> Any:
        """Start a call that is late after `timeout_s`; gives gRPC's future.

        Raises:
            DeadlinePassed: MOST_LATE calls are late, and none of them ended within the deadline.
            ValueError: the channel is closed.
        """
        late_s = time.monotonic() + (threading.TIMEOUT_MAX if timeout_s is None else timeout_s)
        with self._changed:
            if not self._changed.wait_for(self._has_room, None if timeout_s is None else timeout_s):
                raise DeadlinePassed(f"{MOST_LATE} calls before it are not answered either")
            if self._closing:
                raise ValueError("Cannot invoke RPC on closed channel!")  # as gRPC says it
        call = start(metadata=(*self._metadata, *(metadata or ())))
        with self._changed:
            self._open[call] = late_s
        call.add_done_callback(self._end)
        return call

    def _has_room(self) -> bool:
        now_s = time.monotonic()
        return self._closing or sum(late_s <= now_s for late_s in self._open.values()) < MOST_LATE

    def _end(self, call: Any) -> None:
        with self._changed:
            self._open.pop(call, None)
            self._changed.notify_all()
            last = self._closing and not self._open
        if last:
            # gRPC's own thread is in this call, and closing waits for it.
            threading.Thread(target=self._channel.close, daemon=True).start()


class PatientCall:
    """One method of a server; called as gRPC's own object is."""

    def __init__(self, channel: PatientChannel, method: Any) -> None:
        self._channel, self._method = channel, method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> Any:
        """Send a request and wait `timeout` seconds for the answer.

        Raises:
            grpc.RpcError: the call failed, or its end has not come; it is left alone then.
        """
        started_s = time.monotonic()
        call = self.future(request, timeout, metadata, **options)
        left_s = None if timeout is None else max(0.0, timeout - (time.monotonic() - started_s))
        try:
            return call.result(timeout=left_s)
        except grpc.FutureTimeoutError:
            raise DeadlinePassed from None

    def future(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> Any:
        """Send a request; gives gRPC's future, which does not end at the `timeout`: who waits for it stops waiting."""

        def start(metadata: Metadata) -> Any:
            return self._method.future(request, metadata=metadata, **options)

        return self._channel.begin(start, timeout_s=timeout, metadata=metadata)
