"""One `watch` a folder, and one a journal: the second is refused, and a killed one leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client.files import StorageError, lock_file
from client.watching.journal import HIDDEN


class FolderLock:
    """A lock on a folder, in a file in it; one that cannot be written to is locked on this machine alone.

    The system lets go of it when the process ends, however it does.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another one watches the folder, or it cannot be locked.
        """
        self.path = _lock_file(folder)
        try:
            self._file = _lock(self.path, folder)
        except OSError as error:
            raise StorageError(
                f"{folder} cannot be locked against a second watch ({self.path}: {error.strerror}); watch a folder on "
                "a file system that has locks."
            ) from None

    def now_ns(self) -> int:
        """The time by the clock of the folder's file system, which may be that of another machine."""
        try:
            os.utime(self._file)
            return os.fstat(self._file).st_mtime_ns
        except OSError:
            return time.time_ns()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._file)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[FolderLock]:
    """Hold a folder's lock for the length of a `with` block.

    Raises:
        StorageError: another one watches it, or it cannot be locked.
    """
    with contextlib.closing(FolderLock(folder)) as lock:
        yield lock


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold a lock beside a file, here a journal, for the length of a `with` block.

    Raises:
        StorageError: another one uses it, or nothing can be written there.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _lock(lock, path)
    except OSError as error:
        raise StorageError(
            f"The journal {path} cannot be used ({error.strerror}); choose another place with --journal."
        ) from None
    try:
        yield
    finally:
        os.close(held)


def _lock_file(folder: Path) -> Path:
    hidden = folder / HIDDEN
    with contextlib.suppress(OSError):
        hidden.mkdir(exist_ok=True)
        if os.access(hidden, os.W_OK):
            return hidden / "lock"
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"astmfr-watch-{digest}.lock"


def _lock(lock: Path, watched: Path) -> int:
    return lock_file(
        lock,
        lambda holder: (
            f"{watched} is watched already, by {holder}; a second watch would judge its pictures twice. Stop the "
            "first, or watch another folder."
        ),
    )
