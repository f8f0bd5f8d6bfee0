"""The thread that hands one sink what waits for it; a sink that is down never keeps anybody from judging."""

from __future__ import annotations

import random
import threading
import time

from client.watching.database import JournalError
from client.watching.events import Events
from client.watching.sinks.message import Sink, SinkClosed, SinkDown
from client.watching.sinks.outbox import Outbox

BATCH = 100
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
IDLE_S = 1.0  # after which it looks although nobody told it to


class Delivery:
    """Delivers to one sink until it is closed.

    Attributes:
        sink: the sink.
        closed_by_reader: whether nobody will take anything from it again.
    """

    def __init__(self, sink: Sink, outbox: Outbox, events: Events) -> None:
        """Begin to deliver."""
        self.sink, self._outbox, self._events = sink, outbox, events
        self._wake, self._ending = threading.Event(), threading.Event()
        self._down_since_s: float | None = None
        self._left: int | None = None  # messages that wait, once it is closed
        self.closed_by_reader = False
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something new to deliver."""
        self._wake.set()

    @property
    def is_down(self) -> bool:
        """Whether the last try failed."""
        return self._down_since_s is not None

    def count(self) -> int:
        """How many messages wait."""
        return self._outbox.count()

    def close(self, *, within_s: float) -> int:
        """Deliver what can be delivered in that time, and end; says how many messages still wait, for the next run."""
        if self._left is not None:
            return self._left
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s and not self.is_down and self._thread.is_alive() and self.count():
            self.wake()
            time.sleep(0.02)
        self._ending.set()
        self._wake.set()
        self._thread.join(max(0.0, until_s - time.monotonic()) + 1)
        self._left = self.count()
        if not self._thread.is_alive():
            self.sink.close()
            self._outbox.close()
        return self._left

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._ending.is_set():
            self._wake.clear()
            try:
                busy = self._deliver()
                wait_s = FIRST_WAIT_S
                if not busy:
                    self._wake.wait(IDLE_S)
            except (SinkDown, JournalError) as error:
                self._tell_down(str(error))
                self._ending.wait(random.uniform(wait_s / 2, wait_s))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except SinkClosed:
                self.closed_by_reader = True
                return
            except (
                Exception
            ) as error:  # a thread that ends in silence would deliver nothing, and nobody would know
                self._tell_down(f"{self.sink.name} failed ({type(error).__name__}: {error}).")
                self._ending.wait(LONGEST_WAIT_S)

    def _deliver(self) -> bool:
        """Deliver the next messages; says whether there were any."""
        messages = self._outbox.waiting(BATCH)
        for number in self.sink.deliver(messages) if messages else ():
            self._outbox.delivered(number)
            self._tell_back()
            if self._ending.is_set():
                break
        return bool(messages)

    def _tell_down(self, reason: str) -> None:
        self._down_since_s = self._down_since_s or time.monotonic()
        self._events.begin(self.sink.name, f"{reason} What is for it waits in the journal.")

    def _tell_back(self) -> None:
        if self._down_since_s is None:
            return
        away_s = time.monotonic() - self._down_since_s
        self._down_since_s = None
        self._events.end(self.sink.name, f"{self.sink.name} takes messages again, after {away_s:.0f} s.")
