"""A server that takes connections and answers none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.server import TritonServer


@contextmanager
def hanging(server: TritonServer) -> Iterator[None]:
    """Within it the server stands still."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Its threads stop one after the other: one that is still running would answer.
        while any(state != "T" for state in thread_states(server.pid)):
            time.sleep(0.01)
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def thread_states(pid: int) -> list[str]:
    """State of each thread of a process, as in `proc(5)`: T where it is stopped."""
    stats = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(") ")[2].split()[0] for stat in stats]
