"""What the page remembers: in order, once, by one page at a time, and quickly found."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.core.errors import RequestError
from client.files import StorageError
from client.page.marks import Mark
from client.page.store import counts, history, inspections, marked, settings
from client.page.store.database import Database
from client.page.store.history import Filters
from tests.client.page.desk import RELEASE, add, judged


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "data")
    yield opened
    opened.close()


def mark(inspection: int, wrong: str = "escape") -> Mark:
    return Mark(inspection, wrong, "a note", None, "Ann", datetime.now(UTC))  # type: ignore[arg-type]


def test_two_pages_on_one_folder_are_refused(database: Database) -> None:
    with pytest.raises(StorageError, match="is in use by another page"):
        Database(database.folder)


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Database(tmp_path)
    number = add(first, 1.5)
    waiting = add(first, None)
    first.close()
    second = Database(tmp_path)
    found = inspections.find(second, number)
    assert found is not None
    assert (found.outcome, found.score, found.release_id) == ("reject", 1.5, RELEASE)
    assert [each.id for each in inspections.waiting(second, "pill", 9)] == [waiting]
    second.close()


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database" * 100, "is not the page's database"), (b"", "of version 99")]
)
def test_a_file_that_is_not_ours_stays_as_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "page.sqlite"
    path.write_bytes(content)
    if not content:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=said):
        Database(tmp_path)
    assert path.read_bytes() == before


def fill(database: Database) -> None:
    for _ in range(200):
        add(database, name="x" * 190)


def test_a_full_disk_is_told_and_nothing_is_half_kept(database: Database) -> None:
    add(database)
    pages = database._writer.execute("PRAGMA page_count").fetchone()[0]
    database._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"cannot be written \(database or disk is full\); make room"):
        fill(database)
    database._writer.execute("PRAGMA max_page_count = 1000000")
    total = history.count(database, Filters())
    assert total == len(list(history.every_row(database, Filters())))
    assert add(database) == total + 1


def test_a_journal_s_number_is_taken_once(database: Database) -> None:
    number = add(database, source="journal-a", number=7)
    new = inspections.find(database, number)
    assert new is not None
    again = inspections.NewInspection("pill", "b.png", "journal-a", 1.0, None, None, number=7)
    assert inspections.add(database, again, judged()) is None
    assert inspections.last_number(database, "journal-a") == 7
    assert inspections.last_number(database, "journal-b") == 0
    assert history.count(database, Filters()) == 1


def test_the_order_is_that_of_arrival_whatever_the_clock_says(database: Database) -> None:
    first = add(database, arrived_at=2_000_000_000.0)
    second = add(database, arrived_at=1_000_000_000.0)  # the clock was set back
    assert [row.id for row in inspections.latest(database, "pill", 9)] == [second, first]
    assert history.neighbours(database, first, Filters()) == (None, second)


def test_changes_are_numbered_over_all_rows(database: Database) -> None:
    first, second = add(database, None), add(database)
    since = inspections.last_change(database)
    inspections.settle(database, first, judged(1.5), None)
    marked.keep(database, mark(second))
    changed = inspections.changed_since(database, since, 9)
    assert [(row.id, row.outcome, row.wrong) for row in changed] == [
        (first, "reject", None),
        (second, "good", "escape"),
    ]
    marked.remove(database, second)
    (again,) = inspections.changed_since(database, changed[-1].changed, 9)
    assert (again.id, again.wrong) == (second, None)


def test_every_filter_lets_through_what_it_says(database: Database) -> None:
    old = add(database, 0.2, arrived_at=100.0, name="Old_part.png")
    bad = add(database, 1.5, arrived_at=200.0)
    other = add(database, 0.3, category="cable", verdict=judged(0.3, release_id=5))
    failed = add(database, None)
    inspections.fail(database, failed, "truncated")
    marked.keep(database, mark(old))
    expected = {
        (): [failed, other, bad, old],
        (("category", "pill"),): [failed, bad, old],
        (("outcome", "reject"),): [bad],
        (("outcome", "failed"),): [failed],
        (("release_id", 5),): [other],
        (("since", 100.0), ("until", 200.0)): [old],
        (("defect_from", 12),): [bad],
        (("defect_from", 13),): [],
        (("defect_to", 11),): [other, old],
        (("marked", "any"),): [old],
        (("marked", "false reject"),): [],
        (("name", "old_"),): [old],
    }
    for given, ids in expected.items():
        filters = Filters(**dict(given))  # type: ignore[arg-type]
        assert [row.id for row in history.rows(database, filters, limit=9)] == ids, given
        assert history.count(database, filters) == len(ids), given


def test_pages_neither_lose_nor_repeat_a_row(database: Database) -> None:
    ids = [add(database, 0.5 if number % 3 else 2.0) for number in range(20)]
    filters = Filters(outcome="good")
    good = [number for index, number in enumerate(ids) if index % 3][::-1]
    pages, before = [], None
    while page := history.rows(database, filters, limit=4, before=before):
        pages.append([row.id for row in page])
        before = page[-1].id
    assert [number for page in pages for number in page] == good
    back = history.rows(database, filters, limit=4, after=pages[2][0])
    assert [row.id for row in back] == pages[1]


def test_a_shift_counts_what_came_in_it_and_all_that_waits(database: Database) -> None:
    now = time.time()
    add(database, 2.0, arrived_at=now - 100)
    for score in (0.5, 0.6, 2.0):
        add(database, score, arrived_at=now)
    add(database, None, arrived_at=now - 100)
    add(database, 0.1, arrived_at=now, category="cable")
    found = counts.counts(database, "pill", now - 10)
    assert (found.good, found.reject, found.failed, found.waiting) == (2, 1, 0, 1)
    assert found.reject_rate == pytest.approx(1 / 3)
    assert counts.counts(database, "none", 0).reject_rate is None


@pytest.mark.parametrize(
    ("now", "since"),
    [
        ("2026-03-02 05:59", "2026-03-01 22:00"),
        ("2026-03-02 06:00", "2026-03-02 06:00"),
        ("2026-03-02 15:00", "2026-03-02 14:00"),
    ],
)
def test_a_shift_starts_at_the_last_start_before_now(database: Database, now: str, since: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    shift = settings.current_shift(database, moment)
    assert (shift.since, shift.by_hand) == (datetime.fromisoformat(since).replace(tzinfo=UTC), False)


def test_counting_anew_holds_until_the_next_shift(database: Database) -> None:
    anew = datetime(2026, 3, 2, 9, tzinfo=UTC)
    settings.count_from(database, anew)
    assert settings.current_shift(database, anew.replace(hour=10)) == settings.Shift(anew, by_hand=True)
    later = settings.current_shift(database, anew.replace(hour=14))
    assert (later.since.hour, later.by_hand) == (14, False)
    before = settings.current_shift(database, anew.replace(hour=8))  # the clock was set back
    assert (before.since.hour, before.by_hand) == (6, False)


@pytest.mark.parametrize("starts", [[], ["24:00"], ["6"], ["06:00", "noon"]])
def test_a_shift_that_cannot_start_is_refused(database: Database, starts: list[str]) -> None:
    with pytest.raises(RequestError, match=r"expected .*06:00"):
        settings.set_shift_starts(database, starts)
    assert settings.shift_starts(database) == ["06:00", "14:00", "22:00"]


def test_scores_are_compared_over_thresholds_of_the_same_weights(database: Database) -> None:
    for release in (1, 2, 3, 9):
        add(database, float(release), verdict=judged(float(release), release_id=release))
    for before, after in ((1, 2), (2, 3)):
        settings.keep_retuning(
            database,
            category="pill",
            moment=datetime.now(UTC),
            who="Ann",
            reason="r",
            threshold=0.75,
            releases=(before, after),
        )
    assert settings.same_weights(database, "pill", 3) == [1, 2, 3]
    assert settings.same_weights(database, "pill", 9) == [9]
    assert history.release_ids(database, "pill") == [9, 3, 2, 1]
    assert history.release_ids(database, "cable") == []
    assert settings.threshold_of(database, "pill", 3) == 1.0  # of the picture that it judged
    assert [image.score for image in counts.scores(database, "pill", [1, 2, 3], limit=2)] == [3.0, 2.0]
