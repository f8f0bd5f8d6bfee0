"""A folder for the length of a preview: beside the repository, so that its files can be linked to, and locked by us.

One whose owner was killed is removed by the next preview, which finds it unlocked.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.errors import RepositoryError

PREFIX = ".astmfr-preview-"  # Triton, publishing and training take no notice of hidden folders
LOCK = "lock"
UNLOCKED_S = 3600.0  # a folder so old without a lock is no longer being made


@contextmanager
def scratch_folder(repository: Path) -> Iterator[Path]:
    """An empty folder beside a repository, or where that cannot be written, among the system's temporary ones.

    Raises:
        RepositoryError: neither can be written.
    """
    places = _places(repository)
    for place in places:
        sweep(place)
    folder, lock = _make(places)
    try:
        inner = folder / "model_repository"
        inner.mkdir()
        yield inner
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(place: Path) -> list[Path]:
    """Remove the folders of previews that were killed; returns these."""
    removed = []
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or just gone
            if _is_forgotten(folder):
                shutil.rmtree(folder)
                removed.append(folder)
    return removed


def _places(repository: Path) -> list[Path]:
    """Where the folder may lie, the best first: Triton cannot start a Python step below a path with a space."""
    places = [repository.resolve().parent, repository.absolute().parent, Path(tempfile.gettempdir())]
    return [place for place in dict.fromkeys(places) if not re.search(r"\s", str(place))]


def _make(places: list[Path]) -> tuple[Path, int]:
    """A new folder and the lock on it.

    Raises:
        RepositoryError: none can be made.
    """
    faults = []
    for place in places:
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        except OSError as error:
            faults.append(f"{place}: {error.strerror}")
            continue
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(
            OSError
        ):  # a network disk without locks: it is removed at the end, and not after a kill
            fcntl.flock(lock, fcntl.LOCK_EX)
        return folder, lock
    raise RepositoryError(
        f"there is no place for a preview ({'; '.join(faults) or 'every path there has a space in it'}); make the "
        "folder that the repository lies in writable, or name another one in TMPDIR."
    )


def _is_forgotten(folder: Path) -> bool:
    """Whether a folder's owner has ended.

    Raises:
        OSError: it cannot be told.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > UNLOCKED_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives
        return False
    finally:
        os.close(lock)
    return True
