"""A lock that one process holds on a folder while it works there; one that died holds none.

filelock, which comes with torch, empties the file of whoever holds the lock: nobody could be named.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from train.errors import RunError
from train.support.files import storage_errors
from train.support.progress import console

POLL_S = 0.1
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none


@contextmanager
def exclusive(path: Path, *, work: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file at `path` during the block, and remove it after, with its folder where it made that.

    The system lets a lock go when its process ends, however it ends: a file that was left behind is taken over.

    Args:
        path: the lock file; its folder is made.
        work: what is done to the folder, for another process that is refused: `trained`, `evaluated`.
        wait_s: how long another process that holds it is waited for, which is told.

    Raises:
        RunError: another process still holds it; the sentence names process, machine and time.
        StorageError: the file cannot be written.
    """
    made = not os.path.lexists(path.parent)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked_file(path, work=work, wait_s=wait_s)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
            if made:
                path.parent.rmdir()
        file.close()


def _locked_file(path: Path, *, work: str, wait_s: float) -> IO[str]:
    """The open lock file. One that another process removed before we had the lock is no lock: it is made again."""
    given_up_s, told = time.monotonic() + wait_s, False
    while True:
        file, ours = path.open("a+", encoding="utf-8"), False
        try:
            held_by = _lock(file, path)
            if held_by is not None and time.monotonic() >= given_up_s:
                raise RunError(_refusal(path, work=work, owner=held_by, wait_s=wait_s))
            if held_by is not None and not told:
                console.print(f"{path.parent} is being {work} by {held_by}: waiting.", markup=False)
                told = True
            ours = held_by is None and _is_at(path, file)
            if ours:
                _write_owner(file)
                return file
        except BaseException:
            with suppress(OSError):
                if ours:
                    path.unlink()
            with suppress(OSError):  # what a full disk did not take is tried once more
                file.close()
            raise
        file.close()
        time.sleep(POLL_S if held_by is not None else 0)


def _is_at(path: Path, file: IO[str]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _refusal(path: Path, *, work: str, owner: str, wait_s: float) -> str:
    waited = f", which was waited for {wait_s:g} s" if wait_s else ""
    return f"{path.parent} is being {work} by {owner}{waited}; wait until it is done, or stop it and start again."


def _lock(file: IO[str], path: Path) -> str | None:
    """Lock the open file; give who holds it where another process does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(file)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        console.print(
            f"Warning: {path.parent} lies on a file system without locks: see to it that no other process works there.",
            style="yellow",
            markup=False,
        )
    return None


def _write_owner(file: IO[str]) -> None:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file.truncate(0)
    file.write(json.dumps(owner) + "\n")
    file.flush()


def _owner(file: IO[str]) -> str:
    """Who holds the lock, as its file says."""
    file.seek(0)
    try:
        owner: dict[str, Any] = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
