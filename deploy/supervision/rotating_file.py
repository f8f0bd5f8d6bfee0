"""A file that is appended to, stays within a size, and does not stop its writer when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path


class RotatingFile:
    """Appends to a file; a full one becomes `NAME.1`, and the `NAME.1` of before `NAME.2`, up to `keep` of them.

    What cannot be written is dropped and counted. As soon as there is room again, a line says how much is missing.

    Attributes:
        dropped: lines that are missing and that no line in the file tells yet.
        fault: what the system said when a line was dropped last; empty while all is written.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        """Append to the file at `path`; it is opened, and its folder made, when something is written."""
        self.path = path
        self.dropped = 0
        self.fault = ""
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None

    def append(self, data: bytes) -> None:
        """Append whole lines.

        Raises:
            OSError: they cannot be written, the disk is full say; a part of them may be.
        """
        file = self._opened()
        while data:
            data = data[os.write(file, data) :]

    def write(self, data: bytes) -> None:
        """Append whole lines; where that fails, count them as dropped."""
        note = f"=== {self.dropped} lines are missing here: {self.fault}\n".encode() if self.dropped else b""
        try:
            self.append(note + data)
        except OSError as error:
            self.dropped += data.count(b"\n")
            self.fault = error.strerror or str(error)
        else:
            self.dropped, self.fault = 0, ""

    def close(self) -> None:
        """Close the file; nothing may be written any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _opened(self) -> int:
        """The file; a new one where it is full, or where somebody has removed or renamed it."""
        if self._file is None:
            self._file = self._open()
        mine = os.fstat(self._file)
        if mine.st_size >= self._max_bytes and self._is_at_path(mine):
            for number in range(self._keep, 0, -1):
                source = self.path if number == 1 else self._numbered(number - 1)
                if source.exists():
                    source.replace(self._numbered(number))
        if not self._is_at_path(mine):
            opened = self._open()
            os.close(self._file)
            self._file = opened
        return self._file

    def _is_at_path(self, mine: os.stat_result) -> bool:
        try:
            there = self.path.stat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
