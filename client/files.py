"""Write files whole or not at all, find out beforehand whether that will work, and keep other processes off."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

NAME_KEPT = 50  # characters of a file's name in that of its temporary file, which must stay below 255 bytes
PROBE_BYTES = 4096  # a full disk still makes empty files
LONGEST_NOTE = 200  # bytes read of what the holder of a lock wrote into it


class StorageError(Exception):
    """A file cannot be written: a full or read-only disk, a missing permission, a name that does not go.

    Attributes:
        message: which, why, and what to do, in one sentence.
        exit_code: of a command that ends with it.
    """

    exit_code = 2  # 1 is what `predict` exits with where it found anomalies

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write to `path` into one sentence.

    Raises:
        StorageError: the block raised OSError.
    """
    try:
        yield
    except BrokenPipeError:
        raise StorageError(f"{path} cannot be written: nobody reads it any more.") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}); make room there or choose another place."
        ) from None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to disk, then rename it there.

    When `write` raises, the file at `path` stays as it was. A link stays a link; a device or pipe is written to.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(path):
        if is_stream(path):
            write(path)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:NAME_KEPT]}.{os.getpid()}")
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; bytes of file names that are no UTF-8 are written as `\\udcff`.

    Raises:
        StorageError: it cannot be written.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def is_stream(path: Path) -> bool:
    """Whether there is something at `path` that is no file on a disk and no folder: a terminal, pipe or device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def require_writable_file(path: Path) -> None:
    """Make sure that a file can be written at `path`; nothing is changed.

    Raises:
        StorageError: it cannot.
    """
    with storage_errors(path):
        if is_stream(path):
            return
        if path.is_dir():
            raise StorageError(f"{path} is a folder; give the name of a file.")
        _probe(Path(os.path.realpath(path)).parent)


def require_writable_folder(path: Path) -> None:
    """Make sure that files can be written into a folder, or that it can be made; nothing is changed.

    Raises:
        StorageError: it cannot.
    """
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is a file; give a folder.")
        _probe(path)


def lock_file(path: Path, refusal: Callable[[str], str]) -> int:
    """Lock a file, which is made where there is none; the system lets go when the process ends, however it does.

    Args:
        path: the file, into which the holder's process is written.
        refusal: the sentence for whom it is locked already, of who holds it.

    Returns:
        The open file; closing it lets go of the lock.

    Raises:
        StorageError: another process holds it.
        OSError: it cannot be opened or written, or its file system has no locks.
    """
    import fcntl  # which Windows lacks, where the rest of this module is needed all the same

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError:
        holder = os.pread(file, LONGEST_NOTE, 0).decode(errors="replace") or "another process"
        os.close(file)
        raise StorageError(refusal(holder)) from None
    except OSError:
        os.close(file)
        raise
    return file


def _probe(folder: Path) -> None:
    """Write a file without a name into a folder, or where the folder would be made.

    Raises:
        OSError: it cannot be written.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        file.write(bytes(PROBE_BYTES))
