from __future__ import annotations

from deploy.repository import ENCODED
from deploy.supervision.state import State, not_answering

INDEX = [
    {"name": ".releases"},
    {"name": "pill", "version": "1", "state": "READY"},
    {"name": "nut", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
    {"name": "bolt", "version": "1", "state": "UNAVAILABLE", "reason": "no file"},
    {"name": "screw", "version": "2", "state": "READY"},
    {"name": "screw", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
    {"name": "gear", "version": "1", "state": "LOADING"},
    {"name": "new", "version": "1", "state": "READY"},
]
PUBLISHED = {"pill", "nut", "bolt", "screw", "gear", "new"}


def test_it_follows_what_others_load_and_unload() -> None:
    state = State({"pill", "nut", "bolt", "screw", "gear", "pruned"})
    state.follow(INDEX, PUBLISHED)
    assert state.wanted == {"pill", "bolt", "screw", "gear", "new"}


def test_a_repository_that_is_away_takes_nothing_from_what_is_wanted() -> None:
    state = State({"pill", "nut"})
    state.follow([], set())
    assert state.wanted == {"pill", "nut"}


def test_it_serves_when_a_wanted_category_does() -> None:
    ready = [{"name": name, "version": "1", "state": "READY"} for name in ("fusion", "pill", "pill_encoded")]
    state = State({"fusion", "pill", "pill" + ENCODED})
    assert not state.serves(ready[:1])
    assert state.serves(ready)
    assert State({"fusion"}).serves(ready[:1])
    assert State(set()).serves([])


def test_what_failed_while_it_was_reloaded_is_still_wanted() -> None:
    state = State({"nut"})
    state.retries.failed("nut", "no file", now_s=0)
    state.follow(INDEX, PUBLISHED)
    assert "nut" in state.wanted


def test_what_does_not_answer_and_is_not_about_to() -> None:
    wanted = {"pill", "bolt", "screw", "gear", "typo"}
    assert not_answering(INDEX, wanted) == ["bolt", "typo"]


def test_what_is_left_out_is_not_started() -> None:
    state = State({"pill", "bolt"})
    for _ in range(3):
        state.retries.failed("bolt", "no file", now_s=0)
    assert state.to_start() == ["pill"]
