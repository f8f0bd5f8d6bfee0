"""One publisher at a time: what a release becomes depends on what the repository holds, until it is written."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from export.errors import PublishError
from export.releases.changes import unwritable

LOCK_FILE = ".publisher"
WAIT_S = 60.0
POLL_S = 0.1


@contextmanager
def publishing_alone(root: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold a repository's lock, which ends with the process that holds it, however it ends.

    Args:
        root: the repository.
        wait_s: how long another publisher is waited for.

    Raises:
        PublishError: another one was still publishing, which the sentence names; or the repository cannot be written.
    """
    path = root / LOCK_FILE
    try:
        handle = _take(path, wait_s=wait_s)
    except OSError as error:
        raise unwritable(root, error) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path, *, wait_s: float) -> int:
    """Open and lock the file, and write there who holds it."""
    given_up_s = time.monotonic() + wait_s
    waiting = False
    while (handle := _try_to_take(path)) is None:
        holder = _holder(path)
        if time.monotonic() > given_up_s:
            raise PublishError(
                f"{path.parent} is being published into by {holder}, which was waited for {wait_s:g} s; publish again "
                "when it is done."
            )
        if not waiting:
            click.echo(f"Waiting for {holder}, which publishes into {path.parent}.", err=True)
            waiting = True
        time.sleep(POLL_S)
    try:
        since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
    except OSError:
        os.close(handle)
        raise
    return handle


def _try_to_take(path: Path) -> int | None:
    """A handle of the locked file, or None where another process has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it has removed the file since: the next one to come would make and lock another.
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except OSError:  # it is done
        return "another process"
