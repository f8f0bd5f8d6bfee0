"""Put files into a folder so that it is never seen half filled: staged beside it, flushed, then renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from client.core.errors import ClientError
from client.files import NAME_KEPT, storage_errors
from client.page.training_set.reading import digest_of


@contextmanager
def filling_alone(folder: Path) -> Iterator[None]:
    """Fill a folder while no other process or thread fills one beside it; they wait.

    Raises:
        StorageError: the folder that it lies in cannot be made or read.
    """
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network disk without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class Staging:
    """Files on their way into a folder; use it as a context manager, inside `filling_alone`.

    Attributes:
        n_copied: files of another folder that could not be linked to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged = folder.with_name(f".{folder.name[:NAME_KEPT]}.filling")
        self._places: list[PurePosixPath] = []
        self.n_copied = 0

    def __enter__(self) -> Staging:
        with storage_errors(self._folder):
            if self._staged.exists():  # of a process that was killed
                shutil.rmtree(self._staged)
            self._staged.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._staged, ignore_errors=True)

    def write(self, place: PurePosixPath, content: bytes) -> None:
        """Stage a file."""
        with storage_errors(self._folder / place):
            self._path(place).write_bytes(content)

    def copy(self, place: PurePosixPath, source: Path, digest: str) -> None:
        """Stage a copy of a file whose SHA-256 is known, in hexadecimal.

        Raises:
            ClientError: it is gone, or another one by now.
        """
        try:
            with source.open("rb") as original, storage_errors(self._folder / place):
                path = self._path(place)
                with path.open("wb") as copy:
                    shutil.copyfileobj(original, copy)
            if digest_of(path) != digest:
                raise ClientError(f"{source} changed while it was exported; export again.")
        except OSError as error:
            raise ClientError(f"{source} cannot be read ({error.strerror}); export again.") from None

    def take(self, place: PurePosixPath, source: Path) -> None:
        """Stage a file of another folder: as a link to the same bytes where the disk allows that, else as a copy.

        A link to a file of another user, or on another disk, is not allowed.
        """
        with storage_errors(self._folder / place):
            path, real = self._path(place), os.path.realpath(source)
            try:
                os.link(real, path)
            except OSError:
                shutil.copyfile(real, path)
                self.n_copied += 1

    def put_in_place(self) -> None:
        """Flush what is staged and rename it into the folder, in the order in which it was staged.

        A folder that is not there yet, or is empty, appears with all of it at once.
        """
        with storage_errors(self._folder):
            for place in self._places:
                _flush(self._staged / place)
            for folder in {parent for place in self._places for parent in (self._staged / place).parents}:
                if folder.is_relative_to(self._staged):
                    _flush(folder)
            if not self._folder.exists() or not any(self._folder.iterdir()):
                self._staged.replace(self._folder)
            else:
                for place in self._places:
                    (self._folder / place).parent.mkdir(parents=True, exist_ok=True)
                    (self._staged / place).replace(self._folder / place)
                for parent in {(self._folder / place).parent for place in self._places}:
                    _flush(parent)
            _flush(self._folder.parent)

    def _path(self, place: PurePosixPath) -> Path:
        path = self._staged / place
        path.parent.mkdir(parents=True, exist_ok=True)
        self._places.append(place)
        return path


def _flush(path: Path) -> None:
    """Have the disk hold a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network disks flush no folders
            raise
    finally:
        os.close(descriptor)
