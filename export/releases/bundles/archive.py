"""A sealed zip: the same bytes whenever the same members are written, and one changed bit anywhere is found."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from export.errors import PublishError
from export.records import FileRecord
from train.support.files import replacing

INDEX = "bundle.json"
SEAL = b"astmfr-bundle sha256 "  # the zip's comment, its last bytes, begins with it; 64 hexadecimal digits follow
SEAL_LENGTH = len(SEAL) + 64
BEGINNING = b"PK\x03\x04"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows; when it was packed is no part of a release
CHUNK_BYTES = 1 << 20
# What `zipfile` raises for a file that is not what it should be.
UNREADABLE = (
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    TypeError,  # a bundle.json of another form
    AttributeError,
    RecursionError,  # nested too deeply
    NotImplementedError,
    RuntimeError,
    EOFError,
    struct.error,
)


@dataclass(frozen=True)
class Archive:
    """An open bundle whose seal is whole.

    Attributes:
        path: the file.
        zip: the same, open.
        index: what bundle.json says.
        members: hash and size of each member but bundle.json, by name.

    Raises:
        PublishError: by every method: a member is not what bundle.json says.
    """

    path: Path
    zip: zipfile.ZipFile
    index: Mapping[str, Any]
    members: Mapping[str, FileRecord]

    def read(self, name: str) -> bytes:
        """A member's bytes."""
        content = b"".join(self._chunks(name))
        self._require_same(name, hashlib.sha256(content).hexdigest())
        return content

    def extract(self, name: str, target: Path) -> None:
        """Write a member to a file that does not exist; its hash is compared on the way."""
        digest = hashlib.sha256()
        with target.open("xb") as file:
            for chunk in self._chunks(name):
                digest.update(chunk)
                file.write(chunk)
        self._require_same(name, digest.hexdigest())

    def check_members(self) -> None:
        """Compare every member with its hash."""
        for name in self.members:
            digest = hashlib.sha256()
            for chunk in self._chunks(name):
                digest.update(chunk)
            self._require_same(name, digest.hexdigest())

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self.zip.open(name) as member:
                while chunk := member.read(CHUNK_BYTES):
                    yield chunk
        except (*UNREADABLE, OSError) as error:
            raise PublishError(
                f"{self.path}: its {name} cannot be read ({reason_of(error)}); copy it again."
            ) from None

    def _require_same(self, name: str, found: str) -> None:
        if found != self.members[name].sha256:
            raise PublishError(
                f"{self.path}: its {name} was changed since it was packed; copy it again, or pack it again."
            )


def write_archive(path: Path, members: Mapping[str, Path | bytes], about: Mapping[str, Any]) -> None:
    """Write a bundle whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        members: content of each member, or the file that holds it.
        about: what bundle.json says besides the members.

    Raises:
        StorageError: it cannot be written.
        PublishError: what was written is not what was to be, which a damaged disk does.
    """
    listed = {name: _record_of(content).model_dump() for name, content in sorted(members.items())}
    index = json.dumps({**about, "members": listed}, indent=1).encode() + b"\n"
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as packed:
            for name, content in {INDEX: index, **dict(sorted(members.items()))}.items():
                _add(packed, name, content)
            packed.comment = SEAL + b"0" * 64
        with temporary.open("r+b") as file:
            seal = SEAL + _hash_before_seal(file)
            file.seek(-SEAL_LENGTH, os.SEEK_END)
            file.write(seal)
        with opened(temporary) as archive:
            archive.check_members()


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """A bundle, whose seal is compared first and whose members are those that it lists.

    Raises:
        PublishError: it cannot be read, is none, was cut short or changed; a changed member is named.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise PublishError(f"{path} cannot be read ({error.strerror}); give a bundle's file.") from None
    with file:
        try:
            whole = _seal_is_whole(path, file)
            archive = _parse(path, file)
        except OSError as error:
            raise PublishError(f"{path} cannot be read ({error.strerror or error}); copy it again.") from None
        except UNREADABLE as error:
            raise PublishError(
                f"{path} was changed since it was packed ({reason_of(error)}); copy it again, or pack it again."
            ) from None
        if not whole:
            archive.check_members()  # which names the one that was changed
            raise PublishError(f"{path} was changed since it was packed; copy it again, or pack it again.")
        yield archive


def is_archive(path: Path) -> bool:
    """Whether a file ends as a bundle does."""
    try:
        with path.open("rb") as file:
            file.seek(-SEAL_LENGTH, os.SEEK_END)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def _record_of(content: Path | bytes) -> FileRecord:
    if isinstance(content, Path):
        return FileRecord.of(content)
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content))


def _add(packed: zipfile.ZipFile, name: str, content: Path | bytes) -> None:
    info = zipfile.ZipInfo(name, NO_TIME)
    info.external_attr = 0o644 << 16
    info.create_system = 3  # whose file modes these are, on every system
    if isinstance(content, bytes):
        packed.writestr(info, content)
        return
    info.file_size = content.stat().st_size  # by which the zip knows whether it needs 64-bit sizes
    with content.open("rb") as source, packed.open(info, "w") as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def _hash_before_seal(file: IO[bytes]) -> bytes:
    left, digest = file.seek(0, os.SEEK_END) - SEAL_LENGTH, hashlib.sha256()
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def _seal_is_whole(path: Path, file: IO[bytes]) -> bool:
    beginning = file.read(30 + len(INDEX))
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - SEAL_LENGTH))
    seal = file.read()
    if seal[: len(SEAL)] == SEAL:
        return _hash_before_seal(file) == seal[len(SEAL) :]
    if beginning.startswith(BEGINNING) and beginning.endswith(INDEX.encode()):
        raise PublishError(
            f"{path} is cut short, or was changed at its end ({size:,} bytes); copy it again, or pack it again."
        )
    raise PublishError(f"{path} is no bundle; expected a file that `python -m deploy bundle` wrote.")


def _parse(path: Path, file: IO[bytes]) -> Archive:
    packed = zipfile.ZipFile(file)
    index = json.loads(packed.read(INDEX))
    members = {name: FileRecord.model_validate(record) for name, record in index["members"].items()}
    infos = packed.infolist()
    names = [info.filename for info in infos]
    if foreign := sorted({name for name in names if name not in members} - {INDEX}):
        raise PublishError(f"{path} holds {foreign[0]!r}, which its {INDEX} does not list; pack it again.")
    if missing := sorted(members.keys() - set(names)):
        raise PublishError(f"{path} lacks its {missing[0]!r}; copy it again, or pack it again.")
    if len(names) != len(set(names)) or any(info.compress_type for info in infos):
        raise PublishError(f"{path} was not written by `python -m deploy bundle`; pack it again.")
    return Archive(path, packed, index, members)
