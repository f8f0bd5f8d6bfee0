"""What `watch` judged reaches the page once, and old pictures leave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.page.inspecting import feeds
from client.page.inspecting.cleaning import clean
from client.page.inspecting.feeds import Feed
from client.page.marks import Mark
from client.page.state import State
from client.page.store import history, inspections, marked
from client.page.store.history import Filters
from client.page.store.inspections import Inspection
from client.watching.arrivals import Arrival, digest_of
from client.watching.journal import Entry, Journal
from tests.client.page.desk import add, make_state, png
from tests.client.samples import make_prediction

COLOURS = ("teal", "navy", "olive", "maroon", "gold", "pink", "plum")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setattr(feeds, "POLL_S", 0.01)
    monkeypatch.setattr(feeds, "AFTER_FAULT_S", 0.01)
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 0.01)
    made = make_state(tmp_path / "data")
    yield made
    made.database.close()


def record(
    journal: Journal,
    folder: Path,
    name: str,
    *,
    score: float = 0.5,
    there: bool = True,
    fault: str | None = None,
    target: Path | None = None,
) -> None:
    path, content = folder / name, png(colour=COLOURS[len(name) % len(COLOURS)])
    if there:
        path.write_bytes(content)
    prediction = None if fault else make_prediction(str(path), score=score, anomalous=score > 1)
    arrival = Arrival(Path(name), 10, time.monotonic_ns(), 30)
    journal.record([Entry(arrival, digest_of(content), prediction, fault, target)])


def rows(state: State) -> list[Inspection]:
    return list(history.every_row(state.database, Filters()))[::-1]


def follow(path: Path, state: State, done: Callable[[], bool]) -> None:
    feed = Feed(path, state)
    feed.start()
    ends = time.monotonic() + 20
    while not done() and time.monotonic() < ends:
        time.sleep(0.005)
    feed.close()
    assert done()


def test_each_verdict_of_a_journal_is_shown_once_over_restarts(state: State, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = tmp_path / "journal.sqlite"
    follow(path, state, lambda: any("No verdicts come from" in text for text in state.notices.values()))
    with Journal(path) as journal:
        journal.belong_to(drop, "pill")
        record(journal, drop, "a.png")
        record(journal, drop, "b\udcff.png", score=1.5)
        record(journal, drop, "gone.png", there=False)
        follow(path, state, lambda: len(rows(state)) == 3)
        record(journal, drop, "c.png")
        follow(path, state, lambda: len(rows(state)) == 4)
        follow(path, state, lambda: not state.notices)
        source = journal.id
    found = rows(state)
    assert [row.name for row in found] == ["a.png", "b\\udcff.png", "gone.png", "c.png"]
    assert [row.outcome for row in found] == ["good", "reject", "good", "good"]
    assert {row.source for row in found} == {source}
    assert [row.picture is not None for row in found] == [True, True, False, True]
    assert (found[0].width, found[0].height, found[2].width) == (8, 6, None)
    (drop / "a.png").unlink()  # somebody tidies up
    assert (state.database.pictures / str(found[0].picture)).read_bytes() == png(colour=COLOURS[5])


def test_what_a_watch_could_not_judge_is_shown_with_the_reason(state: State, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.belong_to(tmp_path, "pill")
        record(journal, tmp_path, "a.png")
        record(journal, tmp_path, "broken.png", fault="broken.png is cut off.")
        record(journal, tmp_path, "c.png")
        follow(path, state, lambda: len(rows(state)) == 3)
    found = rows(state)
    assert [(row.outcome, row.reason) for row in found] == [
        ("good", None),
        ("failed", "broken.png is cut off."),
        ("good", None),
    ]
    assert (found[1].score, found[1].picture is not None) == (None, True)


def test_no_verdict_is_shown_with_another_part_s_picture(state: State, tmp_path: Path) -> None:
    """A station that overwrites `latest.png` has the next part's picture there by now."""
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.belong_to(tmp_path, "pill")
        record(journal, tmp_path, "latest.png", score=1.5)
        (tmp_path / "latest.png").write_bytes(png((9, 9)))
        follow(path, state, lambda: len(rows(state)) == 1)
    (found,) = rows(state)
    assert (found.outcome, found.picture) == ("reject", None)


def test_a_picture_that_is_moved_meanwhile_is_kept(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_LOOKS", 1000)
    path, moved = tmp_path / "journal.sqlite", tmp_path / "good"
    moved.mkdir()
    with Journal(path) as journal:
        journal.belong_to(tmp_path, "pill")
        record(journal, tmp_path, "a.png", target=moved / "a.png")  # not settled yet
        (tmp_path / "a.png").rename(moved / "a.png")
        record(journal, tmp_path, "ab.png", target=moved / "ab.png")
        (tmp_path / "ab.png").rename(tmp_path / "on its way")
        mover = threading.Timer(0.05, (tmp_path / "on its way").rename, [moved / "ab.png"])
        mover.start()
        follow(path, state, lambda: len(rows(state)) == 2)
    assert [row.picture is not None for row in rows(state)] == [True, True]


def test_verdicts_of_a_category_that_is_not_shown_are_told(state: State, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.belong_to(tmp_path, "screw")
        prediction = replace(make_prediction(str(tmp_path / "a.png")), category="screw")
        journal.record([Entry(Arrival(Path("a.png"), 1, 2, 3), b"x", prediction)])
        follow(path, state, lambda: any("--category screw" in text for text in state.notices.values()))
    assert rows(state) == []


def test_old_pictures_leave_and_their_rows_and_marks_stay(state: State) -> None:
    ids = [add(state.database, 0.5, picture=True) for _ in range(6)]
    waiting = add(state.database, None, picture=True)
    marked.keep(state.database, Mark(ids[0], "escape", "", None, "Ann", datetime.now(UTC)))
    while clean(state, 3):
        pass
    kept = [row.id for row in rows(state) if row.picture is not None]
    assert kept == [ids[0], *ids[4:], waiting]
    assert len(list(state.database.pictures.iterdir())) == len(kept)
    assert inspections.thumbnail(state.database, ids[1]) is None
    assert len(rows(state)) == 7
    assert clean(state, 100) == 0


def test_a_page_that_ends_leaves_a_picture_on_its_way_to_the_next_start(state: State, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.belong_to(tmp_path, "pill")
        record(journal, tmp_path, "a.png", target=tmp_path / "good" / "a.png", there=False)
        feed = Feed(path, state)
        feed._stop.set()
        feed._take_over(journal.judged_since(0)[0], journal)
        assert rows(state) == []
        (tmp_path / "a.png").write_bytes(png(colour=COLOURS[5]))
        follow(path, state, lambda: len(rows(state)) == 1)
    assert rows(state)[0].picture is not None
