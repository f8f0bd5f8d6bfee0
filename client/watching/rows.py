"""What the journal holds of a picture: what is written down, and what is read back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from client.predictions.prediction import Prediction
from client.watching.arrivals import Arrival

REMOVED = Path("/")  # as a target: it is removed


@dataclass(frozen=True)
class Judged:
    """A picture with its verdict.

    Attributes:
        number: rises with every picture that was recorded; the journal never gives one twice.
        path: where the picture is now.
        prediction: the verdict.
        judged_at: when it was recorded, UTC.
    """

    number: int
    path: Path
    prediction: Prediction
    judged_at: datetime


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
    """

    number: int
    arrival: Arrival
    digest: bytes
    target: Path | None
    settled: bool


def known_of(row: Any) -> Known:
    """A row as `Journal` selects it."""
    number, name, size, mtime_ns, inode, digest, target, settled = row
    arrival = Arrival(path_of(name), size, mtime_ns, int(inode))
    return Known(number, arrival, digest, target_of(target), bool(settled))


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
