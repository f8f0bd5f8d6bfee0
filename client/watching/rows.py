"""What the journal holds of a picture: what is written down, and what is read back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from client.predictions.prediction import Prediction
from client.watching.arrivals import GRABBED, Arrival, digest_of

REMOVED = Path("/")  # as a target: it is removed
KNOWN_COLUMNS = (
    "number, name, size, mtime_ns, inode, ctime_ns, digest, target, settled, prediction IS NOT NULL"
)
STEM_KEPT = 200  # bytes of a name that gets a number


@dataclass(frozen=True)
class Judged:
    """A picture with its verdict, or with why it has none.

    Attributes:
        number: rises with every picture that was recorded; the journal never gives one twice.
        paths: where the picture may lie, the likeliest first: it may be moved in this moment. Another picture may have
            come to each of them, see `digest`.
        prediction: the verdict; None where it was not judged, and then it is not good.
        fault: why it was not judged; None where it was.
        digest: of the file's content as it was judged, `digest_of(content).hex()`; empty where it was not read.
        judged_at: when it was recorded, UTC.
    """

    number: int
    paths: tuple[Path, ...]
    prediction: Prediction | None
    fault: str | None
    digest: str
    judged_at: datetime

    @property
    def path(self) -> Path:
        """Where the picture is most likely."""
        return self.paths[0]


@dataclass(frozen=True)
class Entry:
    """What is to be recorded of a picture.

    Attributes:
        arrival, digest: which picture.
        prediction: its verdict; None where it was not judged.
        fault: why it was not judged; None where it was.
        target: where it is to be moved, or REMOVED; None where it stays.
    """

    arrival: Arrival
    digest: bytes
    prediction: Prediction | None
    fault: str | None = None
    target: Path | None = None


@dataclass(frozen=True)
class Known:
    """A picture that is recorded.

    Attributes:
        number: of its row.
        arrival, digest: which picture.
        target: where it was to go, see `Entry`.
        settled: whether it was moved there.
        judged: whether it has a verdict.
    """

    number: int
    arrival: Arrival
    digest: bytes
    target: Path | None
    settled: bool
    judged: bool

    def is_still(self, path: Path) -> bool:
        """Whether the file at `path` is this picture: by its times, and by its content where they say too little.

        Raises:
            OSError: it cannot be read.
        """
        if not self.arrival.is_still(path):
            return False
        found = Arrival.of(self.arrival.name, path.stat())
        if found.ctime_ns == self.arrival.ctime_ns and not found.is_coarse:
            return True
        return not self.digest or digest_of(path.read_bytes()) == self.digest


def known_of(row: Any) -> Known:
    """A row of KNOWN_COLUMNS."""
    number, name, size, mtime_ns, inode, ctime_ns, digest, target, settled, judged = row
    arrival = Arrival(path_of(name), size, mtime_ns, int(inode), ctime_ns or 0)
    return Known(number, arrival, digest, target_of(target), bool(settled), bool(judged))


def paths_of(number: int, source: Path, target: Path | None, *, settled: bool) -> tuple[Path, ...]:
    """Where a picture may lie that was found at `source`, the likeliest place first."""
    if target is None or (settled and target == REMOVED):
        return (source,)
    if settled:
        return target, source
    moving = source, grabbed_path(source, number)
    return moving if target == REMOVED else (*moving, target, numbered(target, number))


def grabbed_path(source: Path, number: int) -> Path:
    """The hidden name of a picture while it is moved."""
    return source.with_name(f"{GRABBED}{number}{source.suffix}")


def numbered(target: Path, number: int, count: int = 1) -> Path:
    """A target with the picture's number in its name, for where that name is taken; `count` makes another one."""
    stem = os.fsdecode(os.fsencode(target.stem)[:STEM_KEPT])
    return target.with_name(f"{stem}.{number}{f'-{count}' if count > 1 else ''}{target.suffix}")


def target_bytes(target: Path | None) -> bytes | None:
    """A target as it is stored."""
    if target is None:
        return None
    return b"" if target == REMOVED else os.fsencode(target)


def target_of(value: bytes | None) -> Path | None:
    """A stored target."""
    if value is None:
        return None
    return path_of(value) if value else REMOVED


def path_of(value: bytes) -> Path:
    """A stored path."""
    return Path(os.fsdecode(value))


def text_of(value: Any) -> str:
    """A stored text; empty where there is none."""
    return "" if value is None else str(value)
