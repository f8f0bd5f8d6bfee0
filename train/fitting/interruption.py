"""Ctrl-C and the signals that end a process wait for the end of a training step, so that its state can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from train.support.progress import console

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption:
    """Whether a signal asks the training to stop."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the signal's number
        self._process = os.getpid()

    def notice(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first one is kept for the loop, a second one stops at once."""
        if os.getpid() != self._process:
            return  # a process that a compiler forked from this one: Ctrl-C reaches it too
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
        console.print("Stopping after this step; once more to stop at once.", style="yellow")

    def tell_saved(self, step: int, n_steps: int, path: Path) -> None:
        """Say where the training goes on, if it was asked to stop."""
        if self.asked is not None:
            console.print(f"Stopped after step {step} of {n_steps}; the same command goes on from {path}.")


@contextmanager
def deferred_signals() -> Iterator[Interruption]:
    """Within it, a signal waits until the block ends, and then does what it would have done.

    The loop looks at `Interruption.asked`, saves and ends. A signal that this process ignores stays ignored. Outside
    the main thread, where Python takes no signals, nothing changes.
    """
    interruption = Interruption()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        handlers = {number: own for number, own in handlers.items() if own not in (signal.SIG_IGN, None)}
    try:
        for number in handlers:
            signal.signal(number, interruption.notice)
        yield interruption
    finally:
        for number, own in handlers.items():
            signal.signal(number, own)
    if interruption.asked is not None:
        signal.raise_signal(interruption.asked)
