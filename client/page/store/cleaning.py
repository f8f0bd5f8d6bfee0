"""Pictures that are forgotten: their rows stay."""

from __future__ import annotations

from client.page.store.database import Database


def forget_pictures(database: Database, *, keep: int, limit: int) -> list[str]:
    """Take pictures, thumbnails and maps from the oldest rows before the last `keep` pictures.

    What is marked, or waits to be judged, keeps its picture.

    Returns:
        The files, relative to the pictures' folder, which nothing names any more.
    """
    with database.write() as connection:
        last = connection.execute(
            "SELECT id FROM inspections WHERE picture IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?", (keep,)
        ).fetchone()
        if last is None:
            return []
        found = connection.execute(
            "SELECT id, picture FROM inspections WHERE picture IS NOT NULL AND id <= ? AND outcome <> 'waiting' "
            "AND id NOT IN (SELECT inspection FROM marks) ORDER BY id LIMIT ?",
            (last["id"], limit),
        ).fetchall()
        ids = [(row["id"],) for row in found]
        connection.executemany("UPDATE inspections SET picture = NULL WHERE id = ?", ids)
        for table in ("thumbnails", "maps"):
            connection.executemany(f"DELETE FROM {table} WHERE inspection = ?", ids)
        return [row["picture"] for row in found]
