"""Pictures on their way to a verdict: nothing is lost, nothing counts as good that was not judged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.core.errors import ClientError, RefusedImage, RequestError, ServerFault, Unreachable
from client.page.inspecting import station as stations
from client.page.inspecting.station import Station
from client.page.state import State
from client.page.store import history, inspections
from client.page.store.history import Filters
from tests.client.page.desk import MAP, add, judged, make_state, png
from tests.client.samples import RELEASE, make_verdict


class Judge:
    """In place of a `JudgeClient`: gives what is to come, in turn, and then verdicts.

    Attributes:
        coming: errors.
        asked: how many images it was asked about.
    """

    bit_depth, release_id, synthetic = 8, RELEASE, False

    def __init__(self, *coming: Exception) -> None:
        self.coming, self.asked, self._lock = list(coming), 0, threading.Lock()

    def judge(self, _image: object) -> Any:
        with self._lock:
            self.asked += 1
            if self.coming:
                raise self.coming.pop(0)
        return make_verdict(MAP)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None: ...


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setattr(stations, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(stations, "POLL_S", 0.02)
    made = make_state(tmp_path)
    yield made
    made.database.close()


def run(
    state: State, monkeypatch: pytest.MonkeyPatch, connect: Callable[[], Judge], done: Callable[[], bool]
) -> Station:
    """Let a category's station work until `done`."""
    monkeypatch.setattr(stations, "JudgeClient", lambda *_, **__: connect())
    station = state.stations["pill"]
    station.start()
    ends = time.monotonic() + 20
    while not done() and time.monotonic() < ends:
        time.sleep(0.005)
    station.close()
    assert done()
    return station


def outcomes(state: State) -> list[tuple[str, str | None]]:
    return [(row.outcome, row.reason) for row in history.every_row(state.database, Filters())][::-1]


def none_waits(state: State) -> Callable[[], bool]:
    return lambda: not inspections.waiting(state.database, "pill", 1)


def test_what_waited_before_the_start_is_judged_with_its_map_and_thumbnail(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [add(state.database, None, picture=True, thumbnail=None, width=None) for _ in range(3)]
    station = run(state, monkeypatch, Judge, none_waits(state))
    assert outcomes(state) == [("reject", None)] * 3
    for number in numbers:
        found = inspections.find(state.database, number)
        assert found is not None
        assert (found.width, found.height, found.release_id) == (8, 6, RELEASE)
        assert found.defects
        assert inspections.stored_map(state.database, number)
        assert (inspections.thumbnail(state.database, number) or b"")[:2] == b"\xff\xd8"
        assert station.previews.get(number)
    assert station.status.release_id == RELEASE


def test_a_server_that_is_away_loses_nothing_and_is_told(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str | None] = []
    monkeypatch.setattr(
        state.hub,
        "publish",
        lambda kind, content, **_: faults.append(content["fault"]) if kind == "status" else None,
    )
    away = iter(range(4))

    def connect() -> Judge:
        if next(away, None) is not None:
            raise Unreachable("Nobody answers at 127.0.0.1:9.")
        return Judge(Unreachable("The connection ended."))

    add(state.database, None, picture=True)
    run(state, monkeypatch, connect, none_waits(state))
    assert outcomes(state) == [("reject", None)]
    assert "Nobody answers at 127.0.0.1:9." in faults
    assert faults[-1] is None


@pytest.mark.parametrize(
    ("fault", "tries"), [(RefusedImage("It is no image."), 1), (ServerFault("A step died."), stations.TRIES)]
)
def test_a_fault_in_one_picture_ends_that_one(
    state: State, monkeypatch: pytest.MonkeyPatch, fault: ClientError, tries: int
) -> None:
    monkeypatch.setattr(stations, "WORKERS", 1)
    monkeypatch.setattr(stations, "FAULT_PATIENCE_S", 0.0)
    judge = Judge(*[fault] * tries)
    for _ in range(2):
        add(state.database, None, picture=True)
    station = state.stations["pill"]
    station._threads = station._threads[:1]
    run(state, monkeypatch, lambda: judge, none_waits(state))
    assert outcomes(state) == [("failed", fault.message), ("reject", None)]
    assert judge.asked == tries + 1


def test_an_error_that_nobody_thought_of_costs_one_picture_and_is_told(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        add(state.database, None, picture=True)
    run(state, monkeypatch, Judge(ZeroDivisionError("oops")).__class__, none_waits(state))
    assert [outcome for outcome, _ in outcomes(state)] == ["reject"] * 3
    judge = Judge(ZeroDivisionError("oops"))
    again = make_again(state)
    for _ in range(2):
        add(state.database, None, picture=True)
    run(again, monkeypatch, lambda: judge, none_waits(again))
    told = [reason for outcome, reason in outcomes(again) if outcome == "failed"]
    assert told == ["The page failed on it (ZeroDivisionError('oops')); its log says where."]
    assert "Traceback" in capsys.readouterr().err


def make_again(state: State) -> State:
    """The same folder after the page was started anew."""
    folder = state.database.folder
    state.database.close()
    again = make_state(folder)
    state.database = again.database
    return again


def test_a_file_that_is_gone_or_broken_is_not_judged_and_says_so_by_its_name(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(state.database, None, picture=True, name="gone.png")
    add(state.database, None, picture=True, name="broken.png")
    gone, broken = sorted(state.database.pictures.iterdir(), key=lambda path: int(path.stem))
    gone.unlink()
    broken.write_bytes(broken.read_bytes()[:50])
    run(state, monkeypatch, Judge, none_waits(state))
    (first, why), (second, why_not) = outcomes(state)
    assert (first, second) == ("failed", "failed")
    assert (why or "").startswith("gone.png cannot be read")
    assert (why_not or "").startswith("broken.png ")
    assert str(state.database.pictures) not in f"{why}{why_not}"


def test_a_page_that_ends_leaves_the_others_waiting(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        add(state.database, None, picture=True)

    def connect() -> Judge:
        raise Unreachable("Nobody answers.")

    run(state, monkeypatch, connect, lambda: state.stations["pill"].status.fault is not None)
    assert outcomes(state) == [("waiting", None)] * 5


def test_a_connection_that_cannot_be_made_in_this_way_costs_no_picture_its_verdict(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is missing, say: it is told, and whoever mends it and starts again loses nothing."""

    def connect() -> Judge:
        raise RequestError("ca.pem cannot be read.")

    add(state.database, None, picture=True)
    run(state, monkeypatch, connect, lambda: state.stations["pill"].status.fault == "ca.pem cannot be read.")
    assert outcomes(state) == [("waiting", None)]


def test_the_server_is_looked_for_before_the_first_picture(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = run(state, monkeypatch, Judge, lambda: state.stations["pill"].status.release_id is not None)
    assert (station.status.release_id, station.status.fault) == (RELEASE, None)


def test_rendered_images_are_told_before_the_server_is_there(state: State) -> None:
    assert not state.stations["pill"].status.synthetic
    add(state.database, verdict=judged(synthetic=True))
    assert make_again(state).stations["pill"].status.synthetic


def test_a_new_connection_closes_none_that_a_picture_is_judged_over(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Closing] = []

    class Closing(Judge):
        is_closed = False

        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            self.release_id = len(made)

        def close(self) -> None:
            self.is_closed = True

    monkeypatch.setattr(stations, "JudgeClient", lambda *_, **__: Closing())
    station = state.stations["pill"]
    with station.judging() as judge:
        assert station.ask_live() == 2
        assert judge is made[0]
        assert not made[0].is_closed
        with station.judging() as other:
            assert other is made[2]
    assert [each.is_closed for each in made] == [True, True, False]
    assert station.status.release_id == 3
    station._connection.close()
    assert made[2].is_closed


def test_a_server_that_fails_on_everything_for_a_while_costs_no_picture_its_verdict(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(*[ServerFault("A step died.")] * 6 * stations.TRIES)
    monkeypatch.setattr(stations, "LONGEST_PAUSE_S", 0.02)
    for _ in range(5):
        add(state.database, None, picture=True)
    run(state, monkeypatch, lambda: judge, none_waits(state))
    assert outcomes(state) == [("reject", None)] * 5


def test_a_picture_on_which_the_server_fails_ends_when_others_are_judged(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    class Choosy(Judge):
        def judge(self, image: Any) -> Any:
            if image.size == (9, 9):
                failed.set()
                raise ServerFault("A step died.")
            failed.wait(20)
            return super().judge(image)

    numbers = [add(state.database, None, picture=True) for _ in range(3)]
    first = inspections.find(state.database, numbers[0])
    assert first is not None
    (state.database.pictures / str(first.picture)).write_bytes(png((9, 9)))
    run(state, monkeypatch, Choosy, none_waits(state))
    assert outcomes(state) == [("failed", "A step died."), ("reject", None), ("reject", None)]


def test_a_database_that_cannot_be_read_for_a_while_is_told_and_no_thread_ends(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stations, "LONGEST_PAUSE_S", 0.02)
    told: list[str | None] = []
    station, failing = state.stations["pill"], iter(range(4))
    tell, waiting = station.tell, inspections.waiting

    def listen(fault: str | None) -> None:
        told.append(fault)
        tell(fault)

    def fail(*given: Any, **named: Any) -> Any:
        if next(failing, None) is not None:
            state.database.read("SELECT * FROM nowhere")
        return waiting(*given, **named)

    monkeypatch.setattr(station, "tell", listen)
    monkeypatch.setattr(inspections, "waiting", fail)
    add(state.database, None, picture=True)
    run(state, monkeypatch, Judge, lambda: bool(outcomes(state)) and not waiting(state.database, "pill", 1))
    assert outcomes(state) == [("reject", None)]
    assert any("cannot be read" in (fault or "") for fault in told)


def test_a_fault_that_is_over_is_taken_back_although_nothing_waits(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stations, "LONGEST_PAUSE_S", 0.02)
    station = state.stations["pill"]
    station._connection._judge = Judge()  # type: ignore[assignment]
    station.tell("A step died.")
    run(state, monkeypatch, Judge, lambda: station.status.fault is None)
