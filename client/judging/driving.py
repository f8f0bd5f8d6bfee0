"""Steps of a question driven from an event loop: a thread takes each of them, and the loop does the waiting.

No call is ever cancelled, whatever becomes of the task that waits for it: tritonserver 2.51 dies of that. A task waits
for a future of its own, which the call's end sets; cancelling the task, its loop's end and a timeout around it reach
that future alone. The steps are closed then, which abandons the request's shared memory, and the call goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from client.core.errors import RequestError
from client.judging.sending import OpenCalls, Pause, Sent
from client.judging.steps import Steps

Result = TypeVar("Result")
MOST_THREADS = 32  # that read images and take steps; they wait for no answer


class Threads:
    """Threads of one client, for what would hold up an event loop."""

    def __init__(self, name: str) -> None:
        """None runs before the first is needed."""
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix=name)

    def start(self, function: Callable[[], object]) -> None:
        """Call a function in one of the threads, for whose end nobody waits; nothing, where the client is closed."""
        with contextlib.suppress(RuntimeError):
            self._pool.submit(function)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a function gives, called in one of the threads in the task's context; who is cancelled does not stop it.

        Raises:
            RequestError: the client is closed.
        """
        try:
            future = self._pool.submit(contextvars.copy_context().run, function, *arguments)
        except RuntimeError:  # as the pool says it
            raise RequestError("This AsyncJudgeClient is closed; connect anew.") from None
        try:
            await _until_done(future)
        finally:
            future.cancel()  # if it has not begun
        return future.result()

    def close(self) -> None:
        """Let the threads end when they have done what they do."""
        self._pool.shutdown(wait=False)


class Conversation(Generic[Result]):
    """Steps that one thread after the other takes, and that may be given up at any time.

    Attributes:
        result: what they came to, once `advance` has given None.
    """

    result: Result

    def __init__(self, steps: Steps[Result]) -> None:
        self._steps = steps
        self._running = threading.Lock()
        self._given_up = False

    def advance(self) -> Sent | Pause | None:
        """Take a step; gives what is to be waited for before the next, and None where that was the last."""
        waiting: Sent | Pause | None = None
        try:
            with self._running:
                if not self._given_up:
                    waiting = next(self._steps)
        except StopIteration as end:
            self.result = end.value
        finally:
            self._close_if_given_up()
        return waiting

    def give_up(self) -> None:
        """Take no further step, and free what the steps hold; a step that is being taken ends before that."""
        self._given_up = True
        self._close_if_given_up()

    def _close_if_given_up(self) -> None:
        if self._given_up and self._running.acquire(blocking=False):
            try:
                self._steps.close()
            finally:
                self._running.release()


async def drive(
    steps: Steps[Result],
    threads: Threads,
    calls: OpenCalls,
    *,
    on_refusal: Callable[[], None] | None = None,
) -> Result:
    """What steps come to.

    Args:
        steps: of one question.
        threads: that take them.
        calls: that the question counts among, until it is answered or nobody waits for it.
        on_refusal: called when an overloaded server has refused a try.

    Raises:
        ClientError: theirs.
    """
    conversation, call = Conversation(steps), calls.begin()

    def leave() -> None:
        conversation.give_up()
        calls.end(call)

    try:
        while (waiting := await threads.run(conversation.advance)) is not None:
            if isinstance(waiting, Pause):
                await asyncio.sleep(waiting.seconds)
                continue
            left_s = max(0.0, waiting.until_s - time.perf_counter())
            await _until_done(waiting.arrival, timeout_s=left_s, leave=leave)
            if on_refusal is not None and waiting.refused:
                on_refusal()
        return conversation.result
    finally:
        leave()


async def _until_done(
    future: Future[Any], *, timeout_s: float | None = None, leave: Callable[[], None] | None = None
) -> None:
    """Wait until a thread has ended a future, however it did, or for `timeout_s`; nothing is ever done to it.

    Args:
        future: of the thread.
        timeout_s: None waits for it as long as it takes.
        leave: called in its thread where the event loop is closed by then, so that nobody waits any more.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def set_done() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(set_done)
        except RuntimeError:  # the loop is closed
            if leave is not None:
                leave()

    future.add_done_callback(wake)
    await asyncio.wait([done], timeout=timeout_s)
