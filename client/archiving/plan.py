"""Which images are judged together: shards of consecutive paths, written down before the first one is judged.

The plan is one file: a line of JSON, then all paths, each ended by a zero byte. A shard is a range of these bytes, so
that no process has to hold all paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from client.files import StorageError, replace_file, storage_errors

FORMAT = 1
END = b"\0"  # of a path; no path holds it


@dataclass(frozen=True)
class Shard:
    """Images that are judged together.

    Attributes:
        number: by which its file is named.
        start, length: of its paths among those of the plan, bytes.
        count: of its images.
    """

    number: int
    start: int
    length: int
    count: int


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


def digest_of(paths: bytes) -> str:
    """By which images are known as the same ones in the same order."""
    return hashlib.sha256(paths).hexdigest()


def split(paths: bytes, size: int) -> list[bytes]:
    """Paths, each ended by a zero byte, in pieces of `size` paths; the last may have fewer."""
    each = paths.split(END)[:-1]
    return [
        b"".join(path + END for path in each[first : first + size]) for first in range(0, len(each), size)
    ]


def write_plan(
    path: Path, *, question: dict[str, Any], listed: str, pieces: Sequence[tuple[int, bytes]]
) -> Plan:
    """Write a plan, whole or not at all.

    Args:
        path: the file.
        question, listed: see `Plan`.
        pieces: number and paths of each shard.

    Raises:
        StorageError: it cannot be written.
    """
    shards, start = [], 0
    for number, paths in pieces:
        shards.append(Shard(number, start, len(paths), paths.count(END)))
        start += len(paths)
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
            file.writelines(paths for _, paths in pieces)

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
