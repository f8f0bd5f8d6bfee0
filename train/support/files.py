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
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success flush it to disk and rename it to `path`.

    When the block raises, the temporary file is removed and whatever stood at `path` stays.

    Raises:
        StorageError: the disk is full, or the file cannot be written for another reason.
    """
    temporary = None
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
    except OSError as error:
        old_file = "; what stood there stays" if path.exists() else ""
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}){old_file}; make room or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success rename it to `path`, in place of what stood there.

    When the block raises, the new folder is removed and whatever stood at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        folder = staging / "new"
        folder.mkdir(mode=0o755)
        yield folder
        if path.exists():
            path.rename(staging / "replaced")
        folder.rename(path)
    finally:
        shutil.rmtree(staging)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; bytes of file names that are no UTF-8 are written as `\\udcff`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file, or it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
