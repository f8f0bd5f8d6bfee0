"""How many requests wait at a step."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SIZE = 64  # requests


@dataclass(frozen=True)
class QueuePolicy:
    """The queue of a step.

    A time to wait was tried, and is not offered: a limit at each step refuses what would have been in time, and does
    not see the time that a backbone waits for its turn (docs/measurements/queues.md).

    Attributes:
        size: requests that may wait; one more is refused at once. 0 is any number, for any time.
    """

    size: int = DEFAULT_SIZE
