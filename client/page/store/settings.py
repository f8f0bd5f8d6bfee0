"""What people set on the page, and the thresholds that they applied."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from client.core.errors import RequestError
from client.page.store.database import Database

DEFAULT_SHIFTS = ("06:00", "14:00", "22:00")
TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True)
class Shift:
    """The shift that counts go back to.

    Attributes:
        since: its start, this machine's time.
        by_hand: somebody began to count anew, and no shift has started since.
    """

    since: datetime
    by_hand: bool


def shift_starts(database: Database) -> list[str]:
    """When shifts start, HH:MM of this machine's time."""
    return list(_read(database, "shifts", DEFAULT_SHIFTS))


def set_shift_starts(database: Database, starts: Sequence[str]) -> None:
    """Set when shifts start.

    Raises:
        RequestError: none, or one that is no time of the day.
    """
    wrong = [start for start in starts if not TIME_OF_DAY.fullmatch(start)]
    if wrong or not starts:
        raise RequestError(
            f"A shift starts at {wrong[0]!r}; expected a time of the day, 06:00 say."
            if wrong
            else "No start of a shift was given; expected times of the day, 06:00 14:00 22:00 say."
        )
    _write(database, "shifts", sorted(set(starts)))


def count_from(database: Database, moment: datetime) -> None:
    """Begin to count anew at a moment."""
    _write(database, "count_from", moment.timestamp())


def current_shift(database: Database, now: datetime) -> Shift:
    """The shift at a moment of this machine's time."""
    latest = max(
        moment
        for start in shift_starts(database)
        for days in (0, 1)
        if (moment := _at(now, start) - timedelta(days=days)) <= now
    )
    by_hand = datetime.fromtimestamp(float(_read(database, "count_from", 0.0)), tz=now.tzinfo)
    if latest < by_hand <= now:
        return Shift(by_hand, by_hand=True)
    return Shift(latest, by_hand=False)


def keep_retuning(
    database: Database,
    *,
    category: str,
    moment: datetime,
    who: str,
    reason: str,
    threshold: float,
    releases: tuple[int | None, int | None],
) -> None:
    """Remember a new threshold, and of which releases the scores are the same: that before and that after."""
    with database.write() as connection:
        connection.execute(
            "INSERT INTO retunings (category, made_at, who, reason, threshold, release_before, release_after) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (category, moment.timestamp(), who, reason, threshold, *releases),
        )


def same_weights(database: Database, category: str, release_id: int) -> list[int]:
    """Releases whose scores can be compared with one's: it and those that differ by thresholds set here."""
    pairs = database.read(
        "SELECT release_before, release_after FROM retunings WHERE category = ? "
        "AND release_before IS NOT NULL AND release_after IS NOT NULL",
        (category,),
    )
    found, before = {release_id}, 0
    while len(found) > before:
        before = len(found)
        for first, second in pairs:
            if first in found or second in found:
                found |= {first, second}
    return sorted(found)


def last_live(database: Database, category: str) -> int | None:
    """The release that was live when the page last knew: that of the last verdict, or of a later retuning."""
    query = (
        "SELECT release_id, arrived_at AS moment FROM (SELECT * FROM inspections WHERE category = :category AND "
        "release_id IS NOT NULL ORDER BY id DESC LIMIT 1) UNION ALL "
        "SELECT release_after, made_at FROM (SELECT * FROM retunings WHERE category = :category AND "
        "release_after IS NOT NULL ORDER BY id DESC LIMIT 1) ORDER BY moment DESC LIMIT 1"
    )
    row = database.read(query, {"category": category}).first
    return None if row is None else int(row["release_id"])


def threshold_of(database: Database, category: str, release_id: int) -> float | None:
    """The threshold that a release judges by: of the last picture that it judged, or the one that was set here."""
    row = (
        database.read(
            "SELECT threshold FROM inspections WHERE release_id = ? AND category = ? ORDER BY id DESC LIMIT 1",
            (release_id, category),
        ).first
        or database.read(
            "SELECT threshold FROM retunings WHERE release_after = ? ORDER BY id DESC", (release_id,)
        ).first
    )
    return None if row is None else float(row["threshold"])


def _at(now: datetime, time_of_day: str) -> datetime:
    hour, minute = map(int, time_of_day.split(":"))
    return now.replace(hour=hour, minute=minute, second=0, microsecond=0)


def _read(database: Database, name: str, default: Any) -> Any:
    row = database.read("SELECT value FROM settings WHERE name = ?", (name,)).first
    return default if row is None else json.loads(row["value"])


def _write(database: Database, name: str, value: object) -> None:
    with database.write() as connection:
        connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))
