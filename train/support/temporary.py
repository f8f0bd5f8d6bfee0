"""Temporary folders named after their process: what one that was killed has left goes at the next start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from train.support.files import storage_errors
from train.support.progress import console


@contextmanager
def temporary_folder(prefix: str, *, longest: int | None = None) -> Iterator[Path]:
    """A folder that only this user may look into, removed after the block, with those of processes that died.

    Args:
        prefix: what its name begins with; the number of this process follows.
        longest: how many letters the path of the folder around it may have: /tmp takes the place of a longer one, which
            is told.

    Raises:
        StorageError: it cannot be written.
    """
    place = Path(tempfile.gettempdir())
    if longest is not None and len(str(place)) > longest:
        if place.resolve() != Path("/tmp"):
            console.print(
                f"Note: temporary files go to /tmp, as the path {place} is too long for names of sockets.",
                markup=False,
                soft_wrap=True,
            )
        place = Path("/tmp")
    _sweep(place, prefix)
    with storage_errors(place):
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path, prefix: str) -> None:
    """Remove this user's folders whose process is dead."""
    for left in place.glob(f"{prefix}*-*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and left.lstat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
