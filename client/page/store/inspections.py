"""Pictures that arrived: added, settled by a verdict, and read back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any, Literal

from client.page.store.database import Database

Outcome = Literal["waiting", "failed", "good", "reject"]
WITH_MARKS = """
SELECT i.*, m.wrong, m.note, m.who, m.made_at, m.mask IS NOT NULL AS drawn
FROM inspections i LEFT JOIN marks m ON m.inspection = i.id
"""


@dataclass(frozen=True)
class NewInspection:
    """A picture that arrives; `id` follows.

    Attributes:
        name: of the file, for people.
        source: `dropped`, or the journal that it was read from, where its `number` is unique.
        picture: its file, relative to the pictures' folder; None where there is none.
        thumbnail: a small JPEG.
        arrived_at: seconds since 1970, UTC.
    """

    category: str
    name: str
    source: str
    arrived_at: float
    picture: str | None
    thumbnail: bytes | None
    width: int | None = None
    height: int | None = None
    number: int | None = None


@dataclass(frozen=True)
class Judged:
    """What the server said of it; `defects` as `Defect.to_dict()` gives them, None where nobody asked."""

    score: float
    threshold: float
    anomalous: bool
    release_id: int
    latency_ms: float
    synthetic: bool
    defects: list[dict[str, Any]] | None


@dataclass(frozen=True)
class StoredMap:
    """An anomaly map as it is kept, see `inspecting.maps`; `release_id` drew it."""

    release_id: int
    low: float
    high: float
    map: bytes
    mask: bytes


@dataclass(frozen=True)
class Inspection:
    """A row of the history; figures are None until it is judged. `wrong` and what follows are its mark's."""

    id: int
    category: str
    name: str
    source: str
    picture: str | None
    arrived_at: float
    outcome: Outcome
    reason: str | None
    score: float | None
    threshold: float | None
    release_id: int | None
    latency_ms: float | None
    synthetic: bool
    width: int | None
    height: int | None
    defects: list[dict[str, Any]] | None
    changed: int
    wrong: str | None
    note: str | None
    who: str | None
    drawn: bool

    @classmethod
    def of(cls, row: sqlite3.Row) -> Inspection:
        """A row of `WITH_MARKS`."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        defects = row["defects"]
        return cls(
            **values
            | {
                "defects": None if defects is None else json.loads(defects),
                "synthetic": bool(row["synthetic"]),
                "drawn": bool(row["drawn"]),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """For the browser, whose numbers are too short for a release's id, and which need not know our folders."""
        release = None if self.release_id is None else str(self.release_id)
        return asdict(self) | {"release_id": release, "picture": self.picture is not None}


def add(
    database: Database, new: NewInspection, judged: Judged | None = None, *, fault: str | None = None
) -> int | None:
    """Add a picture: waiting, judged already, or with the `fault` for which it was not.

    Returns:
        Its id, or None where the journal's number is known.
    """
    with database.write() as connection:
        outcome: Outcome = "failed" if fault is not None else "waiting"
        if judged is not None:
            outcome = _outcome(judged)
        cursor = connection.execute(
            "INSERT INTO inspections (category, name, source, number, picture, arrived_at, outcome, reason, width, "
            "height, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            (new.category, new.name, new.source, new.number, new.picture, new.arrived_at, outcome, fault, new.width,
             new.height, _next_change(connection)),
        )  # fmt: skip
        row = cursor.fetchone()
        if row is None:
            return None
        if new.thumbnail is not None:
            connection.execute("INSERT INTO thumbnails VALUES (?, ?)", (row["id"], new.thumbnail))
        if judged is not None:
            _settle(connection, row["id"], judged)
        return int(row["id"])


def describe(database: Database, inspection: int, *, size: tuple[int, int], thumbnail: bytes) -> None:
    """Keep what a picture's pixels say: width and height, and a small JPEG."""
    with database.write() as connection:
        connection.execute("UPDATE inspections SET width = ?, height = ? WHERE id = ?", (*size, inspection))
        connection.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", (inspection, thumbnail))


def settle(database: Database, inspection: int, judged: Judged, stored: StoredMap | None) -> None:
    """Keep a verdict, and its map in the same transaction."""
    with database.write() as connection:
        _settle(connection, inspection, judged)
        if stored is not None:
            _keep_map(connection, inspection, stored)


def keep_map(database: Database, inspection: int, stored: StoredMap) -> None:
    """Keep a map that was asked for later."""
    with database.write() as connection:
        _keep_map(connection, inspection, stored)


def fail(database: Database, inspection: int, reason: str) -> None:
    """It is not judged, and will not be unless somebody asks again."""
    _change(database, inspection, "failed", reason)


def retry(database: Database, inspection: int) -> None:
    """Let a picture that was not judged wait again."""
    _change(database, inspection, "waiting", None)


def find(database: Database, inspection: int) -> Inspection | None:
    """A picture by its id."""
    row = database.read(f"{WITH_MARKS} WHERE i.id = ?", (inspection,)).first
    return None if row is None else Inspection.of(row)


def waiting(database: Database, category: str, limit: int) -> list[Inspection]:
    """The oldest pictures that wait."""
    rows = database.read(
        f"{WITH_MARKS} WHERE i.outcome = 'waiting' AND i.category = ? ORDER BY i.id LIMIT ?",
        (category, limit),
    )
    return [Inspection.of(row) for row in rows]


def latest(database: Database, category: str, limit: int) -> list[Inspection]:
    """The last pictures of a category, newest first."""
    rows = database.read(f"{WITH_MARKS} WHERE i.category = ? ORDER BY i.id DESC LIMIT ?", (category, limit))
    return [Inspection.of(row) for row in rows]


def changed_since(database: Database, change: int, limit: int) -> list[Inspection]:
    """What was added or changed after a change, in its order."""
    rows = database.read(f"{WITH_MARKS} WHERE i.changed > ? ORDER BY i.changed LIMIT ?", (change, limit))
    return [Inspection.of(row) for row in rows]


def last_change(database: Database) -> int:
    """The number of the last change; 0 where nothing was added yet."""
    return int(database.read("SELECT COALESCE(MAX(changed), 0) FROM inspections")[0][0])


def thumbnail(database: Database, inspection: int) -> bytes | None:
    """The small JPEG."""
    row = database.read("SELECT jpeg FROM thumbnails WHERE inspection = ?", (inspection,)).first
    return None if row is None else bytes(row["jpeg"])


def stored_map(database: Database, inspection: int) -> StoredMap | None:
    """The map, where one is kept."""
    row = database.read("SELECT * FROM maps WHERE inspection = ?", (inspection,)).first
    if row is None:
        return None
    return StoredMap(row["release_id"], row["low"], row["high"], bytes(row["map"]), bytes(row["mask"]))


def touch(connection: sqlite3.Connection, inspection: int) -> None:
    """Give a row the next number of a change, so that every open page hears of it."""
    connection.execute(
        "UPDATE inspections SET changed = ? WHERE id = ?", (_next_change(connection), inspection)
    )


def _change(database: Database, inspection: int, outcome: Outcome, reason: str | None) -> None:
    with database.write() as connection:
        connection.execute(
            "UPDATE inspections SET outcome = ?, reason = ?, changed = ? WHERE id = ?",
            (outcome, reason, _next_change(connection), inspection),
        )


def _next_change(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COALESCE(MAX(changed), 0) + 1 FROM inspections").fetchone()[0])


def _outcome(judged: Judged) -> Outcome:
    return "reject" if judged.anomalous else "good"


def _settle(connection: sqlite3.Connection, inspection: int, judged: Judged) -> None:
    defects = judged.defects
    connection.execute(
        "UPDATE inspections SET outcome = ?, reason = NULL, score = ?, threshold = ?, release_id = ?, latency_ms = ?, "
        "synthetic = ?, defects = ?, largest_defect = ?, changed = ? WHERE id = ?",
        (
            _outcome(judged), judged.score, judged.threshold, judged.release_id, judged.latency_ms, judged.synthetic,
            None if defects is None else json.dumps(defects, allow_nan=False),
            None if defects is None else max((defect["area"] for defect in defects), default=0),
            _next_change(connection), inspection,
        ),
    )  # fmt: skip


def _keep_map(connection: sqlite3.Connection, inspection: int, stored: StoredMap) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO maps (inspection, release_id, low, high, map, mask) VALUES (?, ?, ?, ?, ?, ?)",
        (inspection, stored.release_id, stored.low, stored.high, stored.map, stored.mask),
    )


def last_arrival(database: Database) -> float | None:
    """When the last picture arrived, by the clock of then."""
    row = database.read("SELECT arrived_at FROM inspections ORDER BY id DESC LIMIT 1").first
    return None if row is None else float(row["arrived_at"])


def last_number(database: Database, source: str) -> int:
    """The last number that was taken over from a journal; 0 where none was."""
    query = "SELECT COALESCE(MAX(number), 0) FROM inspections WHERE source = ? AND number IS NOT NULL"
    return int(database.read(query, (source,))[0][0])


def last_is_synthetic(database: Database, category: str) -> bool:
    """Whether the release that judged the last picture of a category was trained on rendered images."""
    judged = "category = ? AND outcome IN ('good', 'reject')"
    query = f"SELECT synthetic FROM inspections WHERE {judged} ORDER BY id DESC LIMIT 1"
    row = database.read(query, (category,)).first
    return row is not None and bool(row["synthetic"])
