"""What `watch` knows over every end of its process: each picture with its verdict, once, and where it was moved.

SQLite in WAL mode, so that others read while it writes. A verdict is on the disk before anybody hears of it.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.console import printable
from client.predictions.prediction import Prediction
from client.watching.arrivals import Arrival
from client.watching.database import JournalError, connect, transaction
from client.watching.rows import (
    KNOWN_COLUMNS,
    REMOVED,
    Entry,
    Known,
    known_of,
    path_of,
    paths_of,
    target_bytes,
    target_of,
    text_of,
)
from client.watching.rows import Judged as Judged

HIDDEN = ".astmfr-watch"  # the folder, in the watched one, that holds the journal and the lock
SCHEMA_VERSION = "1"
LARGEST = 2**63 - 1  # number that SQLite has
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order in which they were recorded; never given twice
    name BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode TEXT NOT NULL, digest BLOB NOT NULL,
    recorded_at TEXT NOT NULL, -- UTC
    prediction TEXT, -- a line of predictions.jsonl; NULL: it was not judged
    fault TEXT, -- why it was not judged
    target BLOB, -- the path that it is moved to; empty: it is removed; NULL: it stays
    settled INTEGER NOT NULL, -- whether that was done
    ctime_ns INTEGER -- NULL: an earlier version recorded it
);
CREATE UNIQUE INDEX IF NOT EXISTS once ON pictures (name, size, mtime_ns, digest);
CREATE INDEX IF NOT EXISTS unsettled ON pictures (number) WHERE NOT settled;
CREATE TABLE IF NOT EXISTS sinks (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL);
"""


def journal_path(folder: Path) -> Path:
    """Where the journal of a watched folder lies unless another place is given."""
    return folder / HIDDEN / "journal.sqlite"


class Journal:
    """The record of one watched folder; threads may share it.

    Attributes:
        path: the file.
        id: of this journal, and of no other; begins the id of every message.
        folder: the folder that is watched.
        category: that its pictures are judged as; empty, as `folder` is, until a first `watch` has begun.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open a journal, or make one unless it is only read.

        Raises:
            JournalError: there is none to read, or the file is none.
        """
        self.path = path
        self._lock = threading.Lock()
        self._database = connect(path, read_only=read_only)
        try:
            if not read_only:
                with transaction(self._database, path) as database:
                    for statement in SCHEMA.split(";\n"):
                        database.execute(statement)
                    if "ctime_ns" not in [row[1] for row in database.execute("PRAGMA table_info(pictures)")]:
                        database.execute("ALTER TABLE pictures ADD COLUMN ctime_ns INTEGER")
                    self._tell_about(database)
            if not self._read("SELECT 1 FROM sqlite_schema WHERE name = 'about'"):
                raise JournalError(
                    f"{path} is no journal, or `watch` is just making it; try again.", may_pass=True
                )
            about = dict(self._read("SELECT name, value FROM about"))
            self.id, version = text_of(about.get("id")), text_of(about.get("version"))
            self.folder, self.category = path_of(about.get("folder") or b""), text_of(about.get("category"))
            if version != SCHEMA_VERSION:
                raise JournalError(
                    f"{path} is a journal of form {version or 'unknown'}, and this program writes form "
                    f"{SCHEMA_VERSION}; give another file with --journal."
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def belong_to(self, folder: Path, category: str) -> None:
        """Let the journal be that of a folder and a category, for good; a folder that it lies in may have been moved.

        Raises:
            JournalError: it is another one's.
        """
        about = dict(self._read("SELECT name, value FROM about"))
        place, before = folder.resolve(), path_of(about.get("folder") or b"")
        known = text_of(about.get("category")) or category
        if known != category:
            raise JournalError(
                f"{self.path} is the journal of category {known!r}, and {category!r} was given; give another file with "
                "--journal, or the category as before."
            )
        if about.get("folder") and before != place and place not in self.path.resolve().parents:
            raise JournalError(
                f"{self.path} is the journal of {before}, and {place} was given; give another file with --journal."
            )
        with self._lock, transaction(self._database, self.path) as database:
            values = {"category": category, "folder": os.fsencode(place)}
            database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())
        self.folder, self.category = place, category

    def find(self, arrival: Arrival) -> list[Known]:
        """The pictures recorded of that name, size and time; more than one where only their content differs."""
        rows = self._read(
            f"SELECT {KNOWN_COLUMNS} FROM pictures WHERE name = ? AND size = ? AND mtime_ns = ?",
            os.fsencode(arrival.name),
            arrival.size,
            arrival.mtime_ns,
        )
        return [known_of(row) for row in rows]

    def has_name(self, name: Path) -> bool:
        """Whether any picture of that name was recorded."""
        return bool(self._read("SELECT 1 FROM pictures WHERE name = ? LIMIT 1", os.fsencode(name)))

    def last_number(self) -> int:
        """Of the picture that was recorded last; 0 where there is none."""
        return int(self._read("SELECT coalesce(max(number), 0) FROM pictures")[0][0])

    def record(self, entries: Sequence[Entry]) -> list[int | None]:
        """Write pictures down together, or none of them; on disk when this returns.

        Returns:
            The number of each; None of one that was recorded before, which stays as it was.

        Raises:
            JournalError: it cannot be written.
        """
        now = datetime.now(UTC).isoformat()
        with self._lock, transaction(self._database, self.path) as database:
            return [_record(database, entry, now) for entry in entries]

    def unsettled(self, *, after: int = 0, limit: int = 100) -> list[Known]:
        """Pictures that are recorded and not yet moved, in their order."""
        rows = self._read(
            f"SELECT {KNOWN_COLUMNS} FROM pictures WHERE NOT settled AND number > ? ORDER BY number LIMIT ?",
            after,
            limit,
        )
        return [known_of(row) for row in rows]

    def aim(self, number: int, target: Path) -> None:
        """Write down another place that a picture is to be moved to, before it is."""
        self._write(
            "UPDATE pictures SET target = ?, settled = 0 WHERE number = ?", target_bytes(target), number
        )

    def settle(self, number: int, *, stays: bool = False) -> None:
        """Write down that a picture was moved, or removed, or that it `stays` after all."""
        also = ", target = NULL" if stays else ""
        self._write(f"UPDATE pictures SET settled = 1{also} WHERE number = ?", number)

    def settled_before(
        self, moment: datetime, *, sinks: Sequence[str], after: int, limit: int
    ) -> list[tuple[int, Path]]:
        """Number and name of pictures recorded before a moment that are moved, and were delivered to all `sinks`."""
        marks = ", ".join("?" * len(sinks))
        rows = self._read(
            "SELECT number, name FROM pictures WHERE number > ? AND settled AND recorded_at < ? AND number <= "
            f"(SELECT coalesce(min(delivered), {LARGEST}) FROM sinks WHERE name IN ({marks})) ORDER BY number LIMIT ?",
            after,
            moment.isoformat(),
            *sinks,
            limit,
        )
        return [(row[0], path_of(row[1])) for row in rows]

    def forget(self, numbers: Sequence[int]) -> None:
        """Remove pictures; their numbers are not given again."""
        with self._lock, transaction(self._database, self.path) as database:
            database.executemany("DELETE FROM pictures WHERE number = ?", [(number,) for number in numbers])

    def judged_since(self, number: int, limit: int = 1000) -> list[Judged]:
        """What was recorded after that number, judged or not, in rising numbers; 0 is before the first one.

        Raises:
            JournalError: it cannot be read, or another version of this program wrote it.
        """
        rows = self._read(
            "SELECT number, name, target, settled, prediction, fault, digest, recorded_at FROM pictures "
            "WHERE number > ? ORDER BY number LIMIT ?",
            number,
            limit,
        )
        return [self._judged(row) for row in rows]

    def _judged(self, row: Any) -> Judged:
        number, name, target, settled, prediction, fault, digest, recorded_at = row
        source = self.folder / path_of(name)
        try:
            verdict = None if prediction is None else Prediction.from_json(prediction)
        except (ValueError, TypeError) as error:
            raise JournalError(
                f"Number {number} of the journal {self.path} is no verdict as this program writes it ({error}); read "
                "it with the version that wrote it."
            ) from None
        return Judged(
            number=number,
            paths=paths_of(number, source, target_of(target), settled=bool(settled)),
            prediction=verdict,
            fault=fault,
            digest=digest.hex(),
            judged_at=datetime.fromisoformat(recorded_at),
        )

    def place(self, name: Path, target: Path | None) -> Path:
        """Where a picture is that was moved to `target`, unless it stayed or was removed."""
        return self.folder / name if target is None or target == REMOVED else target

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._lock, transaction(self._database, self.path, writes=False) as database:
            return database.execute(query, values).fetchall()

    def _write(self, statement: str, *values: Any) -> None:
        with self._lock, transaction(self._database, self.path) as database:
            database.execute(statement, values)

    def _tell_about(self, database: Any) -> None:
        values = {"id": secrets.token_hex(8), "version": SCHEMA_VERSION}
        database.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", values.items())


def _record(database: Any, entry: Entry, now: str) -> int | None:
    """Write a picture down, and give its number; None where it was already: no number is left out for it."""
    arrival = entry.arrival
    which = (os.fsencode(arrival.name), arrival.size, arrival.mtime_ns, entry.digest)
    if database.execute(
        "SELECT 1 FROM pictures WHERE name = ? AND size = ? AND mtime_ns = ? AND digest = ?", which
    ).fetchone():
        return None
    cursor = database.execute(
        "INSERT INTO pictures (name, size, mtime_ns, digest, inode, ctime_ns, recorded_at, prediction, fault, "
        "target, settled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *which,
            str(arrival.inode),
            arrival.ctime_ns,
            now,
            entry.prediction and entry.prediction.to_json(),
            entry.fault and printable(entry.fault),
            target_bytes(entry.target),
            entry.target is None,
        ),
    )
    return int(cursor.lastrowid)
