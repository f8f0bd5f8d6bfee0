"""A file to which a line is added for every answer as it comes, and which replaces that of the run before."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from client.files import StorageError, is_stream, require_writable_file, storage_errors

STANDARD_OUTPUT = Path("-")
PREVIOUS = ".previous"  # ends the name of the file with the answers of the run before
FIRST_LINE_BYTES = 10_000_000  # enough for thousands of defects; another kind of file may be one long line


class GrowingFile:
    """A file that holds whole lines at any moment, whatever ends the run.

    A file of an earlier run stays until the first line of this one. It then stands beside, its name ending in
    `.previous`, until a run is complete: where one stands there already, the run after it was not, and is replaced.
    """

    def __init__(self, path: Path, *, is_ours: Callable[[bytes], bool], heading: bytes = b"") -> None:
        """Make sure that lines can be written there; nothing is created or changed yet.

        Args:
            path: the file, or a pipe or device; `-` is standard output.
            is_ours: whether a file that begins with this line was written by an earlier run.
            heading: what the file begins with.

        Raises:
            StorageError: it cannot be written, or what stands there, or beside it as `.previous`, is something else.
        """
        self.path = path
        self._heading = heading
        self._to_output = path == STANDARD_OUTPUT
        if not self._to_output:
            require_writable_file(path)
        self._stream = self._to_output or is_stream(path)
        self._place = path if self._stream else Path(os.path.realpath(path))
        self._previous = self._place.with_name(self._place.name + PREVIOUS)
        self._replaces = False
        self._replaces_incomplete = False
        self._file: io.FileIO | None = None
        self._size = 0
        if not self._stream:
            _refuse_other_content(path, is_ours)
            _refuse_other_content(self._previous, is_ours)

    def append_line(self, line: bytes) -> None:
        """Write a line and hand it to the system at once.

        Raises:
            StorageError: it cannot be written; the lines before it stay, each whole.
        """
        with self._named_errors():
            self._write(self._file or self._open(), line)

    def close(self, *, complete: bool) -> str | None:
        """Flush the lines to disk. The earlier run's file is removed when this run is complete.

        Returns:
            What became of an earlier run's answers, if there were any.

        Raises:
            StorageError: a disk fault.
        """
        with self._named_errors():
            if self._file is None and not complete:
                return None
            with self._file or self._open() as file:
                if not self._stream:
                    os.fsync(file.fileno())
            if not self._replaces:
                return None
            if not complete:
                if not self._replaces_incomplete:
                    return f"The answers of the run before are in {self._previous}."
                return (
                    f"The answers of an earlier run are in {self._previous}; those of the run before, which was not "
                    "complete, were replaced."
                )
            self._previous.unlink()
            return f"The answers of an earlier run in {self.path} were replaced."

    def _named_errors(self) -> AbstractContextManager[None]:
        return storage_errors(Path("Standard output") if self._to_output else self.path)

    def _write(self, file: io.FileIO, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # nothing can be cut off from a pipe
                file.truncate(self._size)
            raise
        self._size += len(line)

    def _open(self) -> io.FileIO:
        if not self._stream:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._replaces_incomplete = _holds_something(self._previous)
            self._replaces = self._replaces_incomplete or _holds_something(self._place)
            if self._replaces and not self._replaces_incomplete:
                self._place.replace(self._previous)
        self._file = io.FileIO(os.dup(sys.stdout.fileno()) if self._to_output else self._place, "wb")
        self._write(self._file, self._heading)
        return self._file


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _refuse_other_content(path: Path, is_ours: Callable[[bytes], bool]) -> None:
    """Let nothing be overwritten but answers.

    Raises:
        StorageError: the file holds something else.
    """
    with storage_errors(path):
        if not path.exists():
            return
        with path.open("rb") as file:
            first = file.readline(FIRST_LINE_BYTES)
    if first and not is_ours(first):
        raise StorageError(
            f"{path} exists and holds no predictions; give another file, or remove it if it is not needed."
        )
