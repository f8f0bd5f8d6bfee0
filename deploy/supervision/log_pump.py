"""The server's output, read from a pipe and written into its log by a thread of ours.

The server itself holds no file: a log can be rotated under it, and a full disk neither stops nor kills it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.supervision.rotating_file import RotatingFile

if TYPE_CHECKING:
    from deploy.server import TritonServer

CHUNK_BYTES = 1 << 16
PIPE_BYTES = 1 << 20  # the server waits while the pipe is full
FIRST_BYTES = 4 << 20  # kept in memory: how the models were loaded
LAST_BYTES = 1 << 18  # and what was said last
ENDING_S = 2


class LogPump:
    """Carries what is written to `write_end` into a log, until every process has closed it."""

    def __init__(self, log: RotatingFile) -> None:
        """Make the pipe and begin to read; the log is closed at the end."""
        self._log = log
        self._first = bytearray()
        self._last = bytearray()
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a container may allow less
            fcntl.fcntl(self._read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._carry, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that could not be written lately; 0 while all is written."""
        return self._log.dropped

    @property
    def fault(self) -> str:
        """Why lines could not be written; empty while all is."""
        return self._log.fault

    def text(self) -> str:
        """The beginning of the output, and its end where that is far from it."""
        return (bytes(self._first) + bytes(self._last)).decode(errors="replace")

    def close_write_end(self) -> None:
        """Close our own end, once the server has been started with it."""
        os.close(self.write_end)

    def join(self) -> None:
        """Wait a moment for the last lines; a process that was let go may hold the pipe open for longer."""
        self._thread.join(ENDING_S)

    def _carry(self) -> None:
        rest = b""
        while chunk := os.read(self._read_end, CHUNK_BYTES):
            self._remember(chunk)
            # A line is written as a whole: it is told whether it was dropped, and no file begins in the middle of one.
            lines, end, rest = (rest + chunk).rpartition(b"\n")
            if end:
                self._log.write(lines + end)
            if len(rest) > CHUNK_BYTES:
                self._log.write(rest + b"\n")
                rest = b""
        if rest:
            self._log.write(rest + b"\n")
        os.close(self._read_end)
        self._log.close()

    def _remember(self, chunk: bytes) -> None:
        if len(self._first) < FIRST_BYTES:
            self._first += chunk
            return
        self._last += chunk
        del self._last[:-LAST_BYTES]


class LogWatch:
    """Tells when a log cannot be written, and when it is written again."""

    def __init__(self, tell: Callable[..., None]) -> None:
        """It is written."""
        self._tell = tell
        self._fault = ""

    def look(self, server: TritonServer) -> None:
        """Look once."""
        dropped, fault = server.pump.dropped, server.pump.fault
        if fault and not self._fault:
            self._tell(
                "log_dropped",
                f"{server.log} cannot be written ({fault}): {dropped} lines are missing so far; the server serves on.",
                lines=dropped,
            )
        elif self._fault and not fault:
            self._tell("log_written", f"{server.log} is written again.")
        self._fault = fault
