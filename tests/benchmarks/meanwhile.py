"""What a benchmark looks at while something runs, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def looking(look: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Call `look` again and again while the block runs."""
    done = threading.Event()

    def look_again() -> None:
        while not done.wait(every_s):
            look()

    thread = threading.Thread(target=look_again)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
