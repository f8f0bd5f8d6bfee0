"""Verdicts as JSON lines, as `predict --jsonl` writes them: appended to a file, each once, or printed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.console import printable
from client.files import StorageError, is_stream, require_writable_file, storage_errors
from client.predictions.prediction import Prediction
from client.watching.sinks.message import Message, SinkClosed, SinkDown

TAIL_BYTES = (
    1 << 24
)  # at least, of the file's end, in which lines are looked for that were written before a kill
FIRST_LINE_BYTES = 100_000


class JsonlFile:
    """Appends a line for every verdict; pictures that were not judged have none.

    A kill may come between a line and the journal's note of it. The lines at the end of the file are therefore compared
    with the first ones to be written: what stands there already is not written again, half a line is cut off. After a
    power failure the journal may have forgotten several such notes; comparing goes on until a line is new.
    """

    def __init__(self, path: Path) -> None:
        """Make sure that lines can be appended to a file; nothing is changed yet.

        Raises:
            StorageError: they cannot, or it holds something else.
        """
        require_writable_file(path)
        self.path, self.name = path, f"JSON lines in {printable(str(path.absolute()))}"
        self._checked = False
        if not is_stream(path):
            _refuse_other_content(path)

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Append the lines of all messages, and yield when they are on the disk."""
        lines = [message.prediction.to_json().encode() for message in messages if message.prediction]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Opened anew each time, so that a program that rotates logs can take the file away.
            with io.FileIO(self.path, "ab" if is_stream(self.path) else "ab+") as file:
                self._append(file, lines)
        except BrokenPipeError:
            raise SinkClosed(self.name) from None
        except OSError as error:
            raise SinkDown(f"{self.path} cannot be written ({error.strerror}); make room there.") from None
        yield messages[-1].number

    def close(self) -> None:
        """Nothing is open."""

    def _append(self, file: io.FileIO, lines: Sequence[bytes]) -> None:
        if is_stream(self.path):
            _write(file, b"".join(lines))
            return
        size = os.fstat(file.fileno()).st_size
        rest = list(lines)
        if not self._checked and rest:
            rest = _still_to_write(file, rest)
            size = os.fstat(file.fileno()).st_size
        try:
            _write(file, b"".join(rest))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)  # no half a line stays
            raise
        self._checked = self._checked or bool(rest)


class JsonlStream:
    """Prints a line for every verdict."""

    name = "JSON lines on standard output"

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Print the lines of all messages."""
        try:
            for message in messages:
                if message.prediction is not None:
                    sys.stdout.write(message.prediction.to_json())
                    sys.stdout.flush()
                yield message.number
        except (BrokenPipeError, ValueError):
            raise SinkClosed(self.name) from None
        except OSError as error:
            raise SinkDown(f"Standard output cannot be written ({error.strerror}).") from None

    def close(self) -> None:
        """Standard output stays open."""


def _write(file: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _still_to_write(file: io.FileIO, lines: list[bytes]) -> list[bytes]:
    """The lines that do not stand at the file's end; half of one there is cut off."""
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - max(TAIL_BYTES, sum(map(len, lines))))  # a line of many defects is long
    tail = _read_from(file, start, size)
    begin = tail.rfind(b"\n") + 1
    half = tail[begin:]
    if half and any(line.startswith(half) for line in lines):
        file.truncate(start + begin)
    elif half:
        _write(file, b"\n")
    written = tail[:begin].splitlines(keepends=True)
    for first in range(len(written)):
        count = min(len(lines), len(written) - first)
        if written[first] == lines[0] and written[first : first + count] == lines[:count]:
            return lines[count:]
    return lines


def _read_from(file: io.FileIO, start: int, end: int) -> bytes:
    parts = []
    while part := os.pread(file.fileno(), end - start, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _refuse_other_content(path: Path) -> None:
    """Append to nothing but predictions.

    Raises:
        StorageError: the file holds something else.
    """
    with storage_errors(path):
        if not path.exists():
            return
        with path.open("rb") as file:
            first = file.readline(FIRST_LINE_BYTES)
    try:
        if first.endswith(b"\n"):
            Prediction.from_json(first)
    except (ValueError, TypeError):
        raise StorageError(
            f"{path} exists and holds no predictions; give another file, or remove it if it is not needed."
        ) from None
