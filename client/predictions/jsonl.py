"""Answers as JSON lines: appended as they come, and read back."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from client.core.errors import ClientError
from client.files import StorageError, is_stream, require_writable_file, storage_errors
from client.predictions.prediction import Prediction

PREVIOUS = ".previous"  # ends the name of the file with the answers of the run before
FIRST_LINE_BYTES = 100_000  # enough for a prediction; another kind of file may be one long line


class AnswerFile:
    """A file to which every answer is appended as it comes.

    A file of an earlier run stays until the first answer of this one. It then stands beside, its name ending in
    `.previous`, until this run is complete.
    """

    def __init__(self, path: Path) -> None:
        """Make sure that answers can be written there; nothing is created or changed yet.

        Raises:
            StorageError: they cannot, or the file that stands there holds something else.
        """
        require_writable_file(path)
        self.path = path
        self._stream = is_stream(path)
        self._place = path if self._stream else Path(os.path.realpath(path))
        self._previous = self._place.with_name(self._place.name + PREVIOUS)
        self._replaces = False
        self._file: io.FileIO | None = None
        self._size = 0
        if not self._stream:
            _refuse_other_content(path)

    def append(self, prediction: Prediction) -> None:
        """Write an answer and hand it to the system at once.

        Raises:
            StorageError: it cannot be written; the answers before it stay, each a whole line.
        """
        line = memoryview(prediction.to_json().encode())
        with storage_errors(self.path):
            file = self._file or self._open()
            rest = line
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):  # nothing can be cut off from a pipe
                    file.truncate(self._size)
                raise
            self._size += len(line)

    def close(self, *, complete: bool) -> str | None:
        """Flush the answers to disk. The earlier run's file is removed when this run is complete.

        Returns:
            What became of an earlier run's answers, if there were any.

        Raises:
            StorageError: a disk fault.
        """
        with storage_errors(self.path):
            if self._file is None and not complete:
                return None
            with self._file or self._open() as file:
                if not self._stream:
                    os.fsync(file.fileno())
            if not self._replaces:
                return None
            if not complete:
                return f"The answers of the run before are in {self._previous}."
            self._previous.unlink()
            return f"The answers of an earlier run in {self.path} were replaced."

    def _open(self) -> io.FileIO:
        if not self._stream:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._replaces = self._place.exists() and self._place.stat().st_size > 0
            if self._replaces:
                self._place.replace(self._previous)
        self._file = io.FileIO(self._place, "wb")
        return self._file


def _refuse_other_content(path: Path) -> None:
    """Let nothing be overwritten but predictions.

    Raises:
        StorageError: the file holds something else.
    """
    with storage_errors(path):
        if not path.exists():
            return
        with path.open("rb") as file:
            first = file.readline(FIRST_LINE_BYTES)
    try:
        if first:
            Prediction.from_json(first)
    except (ValueError, TypeError):
        raise StorageError(
            f"{path} exists and holds no predictions; give another file, or remove it if it is not needed."
        ) from None


def read_jsonl(path: Path) -> list[Prediction]:
    """Read predictions.

    Raises:
        ClientError: no such file, or a line of another form.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ClientError(
            f"{path} does not exist; write it with `python -m client predict --jsonl`."
        ) from None
    except OSError as error:
        raise ClientError(f"{path} holds no predictions ({error.strerror}); write it again.") from None
    predictions = []
    for number, line in enumerate(lines, start=1):
        try:
            predictions.append(Prediction.from_json(line))
        except (ValueError, TypeError) as error:
            raise ClientError(
                f"{path} holds no predictions (line {number}: {error}); write it again."
            ) from None
    return predictions
