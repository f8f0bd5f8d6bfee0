"""What the supervisor does, a line each: for people on the terminal, for programs as JSON in a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from deploy.errors import ServerError
from deploy.supervision.rotating_file import RotatingFile

MAX_BYTES = 5 << 20
KEEP = 2


def events_path(log: Path) -> Path:
    """Where the events of a server lie, beside its log: `line.events.jsonl` of `line.log`.

    Of `line.1` it is `line.1.events.jsonl`, and no file that `line.2` has, too.
    """
    return log.with_name(f"{log.name.removesuffix('.log')}.events.jsonl")


class Events:
    """Tells events. Neither a full disk nor a terminal that has gone is an error: the server comes first."""

    def __init__(self, path: Path | None, counted: Callable[[str], None] = lambda event: None) -> None:
        """Append to the file at `path`; None tells the terminal alone. `counted` is told the kind of each.

        Raises:
            ServerError: the file cannot be written.
        """
        self._counted = counted
        self._file: RotatingFile | None = None
        if path is not None:
            self._file = RotatingFile(path, max_bytes=MAX_BYTES, keep=KEEP)
            try:
                self._file.append(b"")
            except OSError as error:
                raise ServerError(
                    f"{path} cannot be written ({error.strerror or error}); make room, or give another with --log."
                ) from None

    def tell(self, event: str, message: str, **details: Any) -> None:
        """One event.

        Args:
            event: its kind in a word or two, `server_died` say.
            message: a sentence for people, in one line.
            details: what a program may want of it: names, numbers, lists of these.
        """
        self._counted(event)
        now = datetime.now(UTC)
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone, a stream that was closed
            click.echo(f"{now.astimezone():%H:%M:%S} {message}", err=True)
        if self._file is not None:
            line = {
                "time": now.isoformat(timespec="milliseconds"),
                "event": event,
                "message": message,
                **details,
            }
            self._file.write((json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """No more events."""
        if self._file is not None:
            self._file.close()
