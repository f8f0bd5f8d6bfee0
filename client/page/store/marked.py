"""Verdicts that people found wrong."""

from __future__ import annotations

from client.page.marks import Mark
from client.page.store.database import Database
from client.page.store.inspections import WITH_MARKS, Inspection, touch


def keep(database: Database, mark: Mark) -> None:
    """Keep a mark in place of an earlier one of the same picture."""
    with database.write() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO marks (inspection, wrong, note, mask, who, made_at) VALUES (?, ?, ?, ?, ?, ?)",
            (mark.inspection, mark.wrong, mark.note, mark.mask_png, mark.who, mark.when.timestamp()),
        )
        touch(connection, mark.inspection)


def remove(database: Database, inspection: int) -> None:
    """Take a mark back."""
    with database.write() as connection:
        connection.execute("DELETE FROM marks WHERE inspection = ?", (inspection,))
        touch(connection, inspection)


def mask_of(database: Database, inspection: int) -> bytes | None:
    """The drawn mask, a PNG."""
    row = database.read("SELECT mask FROM marks WHERE inspection = ?", (inspection,)).first
    return None if row is None or row["mask"] is None else bytes(row["mask"])


def all_marked(database: Database, category: str) -> list[Inspection]:
    """Every marked picture of a category, the latest first."""
    rows = database.read(
        f"{WITH_MARKS} WHERE i.category = ? AND i.id IN (SELECT inspection FROM marks) ORDER BY i.id DESC",
        (category,),
    )
    return [Inspection.of(row) for row in rows]
