"""The history: searched page by page, and exported row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from client.page.store.database import Database
from client.page.store.inspections import WITH_MARKS, Inspection

CHUNK = 1000  # rows of an export that are read at a time
MARKED = ("escape", "false reject")
IS_MARKED = "i.id IN (SELECT inspection FROM marks"


@dataclass(frozen=True)
class Filters:
    """Which rows; None leaves out a condition.

    Attributes:
        marked: `any`, `escape` or `false reject`.
        since, until: of the arrival, seconds since 1970, UTC; `until` is not included.
        defect_from, defect_to: area of the largest defect, pixels of the picture.
        name: part of the file's name.
    """

    category: str | None = None
    outcome: str | None = None
    marked: str | None = None
    release_id: int | None = None
    since: float | None = None
    until: float | None = None
    defect_from: int | None = None
    defect_to: int | None = None
    name: str | None = None

    def conditions(self) -> tuple[str, list[Any]]:
        """SQL, and its values."""
        every: list[tuple[str, Any]] = [
            ("i.category = ?", self.category),
            ("i.outcome = ?", self.outcome),
            ("i.release_id = ?", self.release_id),
            ("i.arrived_at >= ?", self.since),
            ("i.arrived_at < ?", self.until),
            ("i.largest_defect >= ?", self.defect_from),
            ("i.largest_defect <= ?", self.defect_to),
            ("instr(lower(i.name), lower(?)) > 0", self.name or None),
            (f"{IS_MARKED} WHERE wrong = ?)", self.marked if self.marked in MARKED else None),
        ]
        given = [(condition, value) for condition, value in every if value is not None]
        conditions = [condition for condition, _ in given]
        if self.marked == "any":
            conditions.append(f"{IS_MARKED})")
        return " AND ".join(conditions) or "TRUE", [value for _, value in given]


def rows(
    database: Database,
    filters: Filters,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
) -> list[Inspection]:
    """At most `limit` rows, newest first: those below the id `before`, or the nearest above `after`."""
    condition, values = filters.conditions()
    order = "ASC" if after is not None else "DESC"
    for comparison, number in (("i.id < ?", before), ("i.id > ?", after)):
        if number is not None:
            condition, values = f"{condition} AND {comparison}", [*values, number]
    found = database.read(f"{WITH_MARKS} WHERE {condition} ORDER BY i.id {order} LIMIT ?", [*values, limit])
    inspections = [Inspection.of(row) for row in found]
    return inspections[::-1] if after is not None else inspections


def count(database: Database, filters: Filters) -> int:
    """How many rows there are."""
    condition, values = filters.conditions()
    query = f"SELECT COUNT(*) FROM inspections i WHERE {condition}"
    return int(database.read(query, values)[0][0])


def every_row(database: Database, filters: Filters) -> Iterator[Inspection]:
    """All of them, newest first; a few are in memory at a time."""
    before: int | None = None
    while chunk := rows(database, filters, limit=CHUNK, before=before):
        yield from chunk
        before = chunk[-1].id


def neighbours(database: Database, inspection: int, filters: Filters) -> tuple[int | None, int | None]:
    """The ids before and after a picture, of those that the filters let through."""
    older = rows(database, filters, limit=1, before=inspection)
    newer = rows(database, filters, limit=1, after=inspection)
    return (older[0].id if older else None, newer[0].id if newer else None)


def releases(database: Database, category: str | None) -> list[tuple[int, int]]:
    """Releases that judged, the latest first, each with how many pictures it judged."""
    condition, values = ("category = ? AND", [category]) if category else ("", [])
    found = database.read(
        f"SELECT release_id, COUNT(*), MAX(id) FROM inspections WHERE {condition} release_id IS NOT NULL "
        "GROUP BY release_id ORDER BY 3 DESC",
        values,
    )
    return [(int(row[0]), int(row[1])) for row in found]


def release_ids(database: Database, category: str) -> list[int]:
    """Releases that judged, the latest first; quickly, as none of their pictures is counted."""
    found = database.read(
        "WITH RECURSIVE ids (id) AS ("
        " SELECT MIN(release_id) FROM inspections WHERE category = :category UNION ALL"
        " SELECT (SELECT MIN(release_id) FROM inspections WHERE category = :category AND release_id > ids.id)"
        " FROM ids WHERE ids.id IS NOT NULL) "
        "SELECT id, (SELECT MAX(i.id) FROM inspections i WHERE category = :category AND release_id = ids.id) AS last "
        "FROM ids WHERE id IS NOT NULL ORDER BY last DESC",
        {"category": category},
    )
    return [int(row["id"]) for row in found]
