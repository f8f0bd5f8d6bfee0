"""One `watch` a folder, and one a journal: the second is refused, and a killed one leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client.files import StorageError
from client.watching.journal import HIDDEN

LARGEST_NOTE = 200


class FolderLock:
    """A lock on a folder, in a file in it; one that cannot be written to is locked on this machine alone.

    The system lets go of it when the process ends, however it does.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another one watches the folder.
        """
        self.path = _lock_file(folder)
        self._file = _locked(self.path, folder)

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
        StorageError: another one watches it.
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
        held = _locked(lock, path)
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


def _locked(lock: Path, watched: Path) -> int:
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError:
        holder = os.pread(file, LARGEST_NOTE, 0).decode(errors="replace") or "another process"
        os.close(file)
        raise StorageError(
            f"{watched} is watched already, by {holder}; a second watch would judge its pictures twice. Stop the "
            "first, or watch another folder."
        ) from None
    except OSError as error:
        os.close(file)
        raise StorageError(
            f"{watched} cannot be locked against a second watch ({lock}: {error.strerror}); watch a folder on a "
            "file system that has locks."
        ) from None
    return file
