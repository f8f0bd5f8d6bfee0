"""Ctrl-C and SIGTERM, as an event that a loop looks at."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPING = "Stopping after the answers on their way; once more stops at once.\n"
STDERR = 2  # written to directly: a signal may come while the stream is in use


@contextmanager
def stopped_by_signals(said: str = STOPPING) -> Iterator[threading.Event]:
    """Ctrl-C, or the SIGTERM by which a service or a container is stopped, sets the event; a second one interrupts.

    The first one is answered with `said`.

    An exception at once could be raised in code that swallows it, and would lose the answers on their way.
    """
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with suppress(OSError):
            os.write(STDERR, said.encode())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # `nohup` has some ignored.
    heeded = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    try:
        for number in heeded:
            signal.signal(number, handle)
        yield stop
    finally:
        for number in heeded:
            signal.signal(number, before[number])
