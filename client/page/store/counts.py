"""What a shift comes to, and the scores that a threshold divides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.page.store.database import Database
from client.page.store.inspections import Outcome

NONE = 0


@dataclass(frozen=True)
class Counts:
    """Pictures since a time, by outcome."""

    good: int = NONE
    reject: int = NONE
    failed: int = NONE
    waiting: int = NONE

    @property
    def reject_rate(self) -> float | None:
        """Rejects of what was judged, 0..1; None where nothing was."""
        judged = self.good + self.reject
        return self.reject / judged if judged else None


@dataclass(frozen=True)
class ScoredImage:
    """A score, and whether somebody found its verdict wrong."""

    id: int
    score: float
    outcome: Outcome
    wrong: str | None


def counts(database: Database, category: str, since: float) -> Counts:
    """How many pictures of a category arrived since a time, by outcome.

    What waits is counted whenever it came.
    """
    found = database.read(
        "SELECT outcome, COUNT(*) FROM inspections WHERE category = ? AND arrived_at >= ? AND outcome <> 'waiting' "
        "GROUP BY outcome UNION ALL "
        "SELECT 'waiting', COUNT(*) FROM inspections WHERE outcome = 'waiting' AND category = ?",
        (category, since, category),
    )
    return Counts(**{row[0]: row[1] for row in found})


def scores(database: Database, category: str, release_ids: Sequence[int], *, limit: int) -> list[ScoredImage]:
    """The last scores by some releases, newest first."""
    places = ", ".join("?" for _ in release_ids)
    found = database.read(
        "SELECT id, score, outcome FROM inspections "
        f"WHERE category = ? AND release_id IN ({places}) AND outcome IN ('good', 'reject') "
        "ORDER BY id DESC LIMIT ?",
        (category, *release_ids, limit),
    )
    wrong = dict(map(tuple, database.read("SELECT inspection, wrong FROM marks")))
    return [ScoredImage(row["id"], row["score"], row["outcome"], wrong.get(row["id"])) for row in found]


def waiting_by_category(database: Database) -> dict[str, int]:
    """How many pictures wait to be judged, by category; of those that the page shows and of all others."""
    found = database.read(
        "SELECT category, COUNT(*) FROM inspections WHERE outcome = 'waiting' GROUP BY category"
    )
    return {row[0]: int(row[1]) for row in found}
