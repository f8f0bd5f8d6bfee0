"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from train.errors import StorageError


@contextmanager
def storage_errors(path: Path, *, remedy: str = "make room or choose another folder") -> Iterator[None]:
    """Within it, what the system says against writing `path` is told in one sentence, which ends with the remedy.

    Raises:
        StorageError: in place of an OSError: the disk is full or read-only, a name too long.
    """
    try:
        yield
    except OSError as error:
        old_file = "; what stood there stays" if os.path.exists(path) else ""  # noqa: PTH110 (Path.exists raises)
        raise StorageError(
            f"{path} cannot be written ({reason_of(error, path)}){old_file}; {remedy}."
        ) from error


@contextmanager
def reading_errors(path: Path, *, remedy: str = "make it readable, or move it away") -> Iterator[None]:
    """Within it, what the system says against reading `path` is told in one sentence, which ends with the remedy.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: in place of any other OSError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror or error}); {remedy}.") from error


def reason_of(error: OSError, path: Path) -> str:
    """What the system says, with the file's name where it is not `path` or a temporary one for it."""
    reason = error.strerror or str(error)
    named = error.filename
    own = named is None or Path(os.fsdecode(named)).parent == path.parent
    return reason if own else f"{reason}: {os.fsdecode(named)}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success flush it to disk and rename it to `path`.

    When the block raises, the temporary file is removed and whatever stood at `path` stays.

    Raises:
        StorageError: the disk is full, or the file cannot be written for another reason.
    """
    temporary = None
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(0o644)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success rename it to `path`, in place of what stood there.

    When the block raises, the new folder is removed and whatever stood at `path` stays.

    Raises:
        StorageError: the disk is full, or the folder cannot be written for another reason.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            folder = staging / "new"
            folder.mkdir(mode=0o755)
            yield folder
            _put_in_place(folder, path, replaced=staging / "replaced")
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(folder: Path, path: Path, *, replaced: Path) -> None:
    """Rename a folder to `path`; where that fails, what stood there goes back."""
    if path.exists():
        path.rename(replaced)
    try:
        folder.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise


def require_writable(folder: Path) -> None:
    """Make a folder, and make sure that files can be written into it: better now than after minutes of work.

    Raises:
        StorageError: the disk is full or read-only, or the folder is another user's.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"written")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; see `readable_text`."""
    with replacing(path) as temporary:
        temporary.write_text(readable_text(text), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """The text of a JSON file, as `write_json` writes it."""
    return readable_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file, or it is no JSON.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    try:
        with reading_errors(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def readable_text(text: str | os.PathLike[str]) -> str:
    """A path or text in which bytes that are no UTF-8, and no terminal, page or JSON takes, stand as `\\xff`."""
    return (
        os.fspath(text).encode("utf-8", errors="surrogateescape").decode("utf-8", errors="backslashreplace")
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
