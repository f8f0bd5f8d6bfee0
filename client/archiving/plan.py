"""Which images are judged together: shards of consecutive paths, written down before the first one is judged.

The plan is one file: a line of JSON, then all paths, each ended by a zero byte, then the state of each file: its size
and when it was written. A shard is a range of these bytes, so that no process has to hold all paths.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from client.files import StorageError, replace_file, storage_errors

FORMAT = 2
END = b"\0"  # of a path; no path holds it
STATE = struct.Struct("<qq")  # of a file: bytes, and when it was written, nanoseconds
MISSING = STATE.pack(-1, -1)  # nothing can be told of it here


@dataclass(frozen=True)
class Shard:
    """Images that are judged together.

    Attributes:
        number: by which its file is named.
        start, length: of its paths among those of the plan, bytes.
        count: of its images.
        first: of its images, among those of the plan.
    """

    number: int
    start: int
    length: int
    count: int
    first: int


@dataclass(frozen=True)
class Plan:
    """What is asked about which images.

    Attributes:
        path: the file.
        question: what else decides about the rows: category, threshold and the like.
        listed: digest of the list of images that it was made for.
        shards: in the order of the results.
        paths_at: where in the file the paths begin.
    """

    path: Path
    question: dict[str, Any]
    listed: str
    shards: tuple[Shard, ...]
    paths_at: int

    @property
    def n_images(self) -> int:
        """All of them together."""
        return sum(shard.count for shard in self.shards)

    def paths_of(self, shard: Shard) -> bytes:
        """The paths of a shard, each ended by a zero byte.

        Raises:
            StorageError: they cannot be read.
        """
        with storage_errors(self.path), self.path.open("rb") as file:
            file.seek(self.paths_at + shard.start)
            paths = file.read(shard.length)
        if paths.count(END) != shard.count:
            raise _damaged(self.path)
        return paths

    def states_of(self, shard: Shard) -> bytes:
        """The states of a shard's files, see `states_of`, as they were when this was planned.

        Raises:
            StorageError: they cannot be read.
        """
        last = self.shards[-1]
        states_at = self.paths_at + last.start + last.length
        with storage_errors(self.path), self.path.open("rb") as file:
            file.seek(states_at + shard.first * STATE.size)
            states = file.read(shard.count * STATE.size)
        if len(states) != shard.count * STATE.size:
            raise _damaged(self.path)
        return states

    def digest_of(self, shard: Shard) -> str:
        """By which a shard's images are known, and that none was written anew since this was planned."""
        return digest_of(self.paths_of(shard), self.states_of(shard))


def digest_of(paths: bytes, states: bytes) -> str:
    """By which images are known as the same ones in the same order, with the same content as far as can be told."""
    return hashlib.sha256(paths + END + states).hexdigest()


def states_of(paths: Sequence[bytes]) -> bytes:
    """The size of each file and when it was written, `STATE.size` bytes a file; one that is not here is `MISSING`."""
    return b"".join(_state_of(path) for path in paths)


def _state_of(path: bytes) -> bytes:
    try:
        found = os.stat(path)  # noqa: PTH116 (bytes)
    except OSError:
        return MISSING
    return STATE.pack(found.st_size, found.st_mtime_ns)


def split(paths: Sequence[bytes], states: bytes, size: int) -> list[tuple[bytes, bytes]]:
    """Paths, each ended by a zero byte, and their states, in pieces of `size` images; the last may have fewer."""
    return [
        (
            b"".join(path + END for path in paths[first : first + size]),
            states[first * STATE.size : (first + size) * STATE.size],
        )
        for first in range(0, len(paths), size)
    ]


def write_plan(
    path: Path, *, question: dict[str, Any], listed: str, pieces: Sequence[tuple[int, bytes, bytes]]
) -> Plan:
    """Write a plan, whole or not at all.

    Args:
        path: the file.
        question, listed: see `Plan`.
        pieces: number, paths and states of each shard.

    Raises:
        StorageError: it cannot be written.
    """
    shards, start, first = [], 0, 0
    for number, paths, _ in pieces:
        shards.append(Shard(number, start, len(paths), paths.count(END), first))
        start, first = start + len(paths), first + shards[-1].count
    values = {
        "format": FORMAT,
        "question": question,
        "listed": listed,
        "shards": [list(asdict(shard).values()) for shard in shards],
    }
    head = json.dumps(values).encode() + b"\n"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(head)
            file.writelines(paths for _, paths, _ in pieces)
            file.writelines(states for _, _, states in pieces)

    replace_file(path, write)
    return Plan(path, question, listed, tuple(shards), len(head))


def read_plan(path: Path) -> Plan | None:
    """The plan in a file; None where there is none.

    Raises:
        StorageError: it cannot be read, or holds something else.
    """
    with storage_errors(path):
        try:
            with path.open("rb") as file:
                return _read(path, file)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise _damaged(path) from None


def _read(path: Path, file: BinaryIO) -> Plan:
    head = file.readline()
    values = json.loads(head)
    if values["format"] != FORMAT:
        raise ValueError("another format")
    shards = tuple(Shard(*map(int, each)) for each in values["shards"])
    return Plan(path, dict(values["question"]), str(values["listed"]), shards, len(head))


def _damaged(path: Path) -> StorageError:
    return StorageError(
        f"{path} is no plan of this version; remove the folder {path.parent} to judge all images anew."
    )
