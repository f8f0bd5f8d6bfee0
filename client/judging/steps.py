"""What both shells do alike, step by step; who asks does the waiting between the steps.

steps = asker.ask(...)       a generator: it prepares, sends, and yields what is to be waited for
`- sync: `run(steps)`        waits for each in this thread
`- async: `driving.drive`    lets a thread take each step, and waits in the event loop
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TypeVar

from client.judging.sending import Pause, Sent

Result = TypeVar("Result")
Steps = Generator[Sent | Pause, None, Result]


def run(steps: Steps[Result]) -> Result:
    """What steps come to; this thread waits between them."""
    with contextlib.closing(steps):
        while True:
            try:
                waiting = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            waiting.wait()
