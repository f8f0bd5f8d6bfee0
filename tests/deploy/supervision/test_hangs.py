from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from deploy.supervision import hangs
from deploy.supervision.hangs import Hangs, patience_s
from deploy.supervision.stalls import Work
from tests.deploy.conftest import comes_true

STEP = Work(waiting=0, batches=9, batch_s=0.5)


class Server:
    """Asked by `ask`; answers what it is told to, once it may.

    Attributes:
        asked: models, and how long each is waited for.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self._may = threading.Semaphore(0)
        self._answer = True

    def ask(self, model: str, within_s: float) -> bool:
        self.asked.append((model, within_s))
        self._may.acquire(timeout=10)
        return self._answer

    def end(self, watch: Hangs, *, answered: bool) -> None:
        """The probe that is out ends."""
        self._answer = answered
        self._may.release()
        assert comes_true(lambda: watch._probe is None or watch._probe.answered is not None)


def work(answered: int, *categories: str) -> dict[str, Work]:
    """What is loaded: categories that have answered so much together, and a step."""
    models = {"step": STEP}
    for category in categories or ("pill",):
        models[category] = Work(0, 0, 0.0)
        models[f"{category}_encoded"] = Work(0, 0, 0.0, answered=answered)
    return models


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for category in ("nut", "pill"):
        folder = tmp_path / f"{category}_encoded"
        folder.mkdir()
        (folder / "config.pbtxt").write_text('step {\n    model_name: "step"\n}\n')
    return tmp_path


def look(watch: Hangs, now_s: float, answered: int = 7, *, loading: bool = False) -> bool:
    return watch.look(work(answered), loading=loading, now_s=now_s)


def test_two_probes_without_an_answer_are_a_hang(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    assert [look(watch, now) for now in (0.0, 4.9)] == [False, False]
    assert server.asked == []
    assert not look(watch, 5.0)
    assert not look(watch, 9.0)  # still out: no second one beside it
    server.end(watch, answered=False)
    assert not look(watch, 12.0)
    assert not look(watch, 12.5)
    server.end(watch, answered=False)
    assert look(watch, 20.0)
    assert server.asked == [("pill_encoded", 7.0)] * 2


def test_an_answer_to_anybody_is_life(repository: Path) -> None:
    """A slow server, whose probe waits behind others."""
    server = Server()
    watch = Hangs(server.ask, repository)
    for round_s in (0.0, 100.0, 200.0):
        answered = int(round_s)
        assert not look(watch, round_s, answered)
        assert not look(watch, round_s + 6, answered)
        server.end(watch, answered=False)
        assert not look(watch, round_s + 20, answered + 1)
    assert len(server.asked) == 3


def test_while_inferences_end_none_is_sent(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    assert not any(look(watch, float(second), second // 4) for second in range(60))
    assert server.asked == []


def test_categories_take_turns(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    for now_s in (0.0, 6.0, 7.0, 13.0, 14.0, 20.0):
        assert not watch.look(work(7, "pill", "nut"), loading=False, now_s=now_s)
        if now_s in (6.0, 13.0, 20.0):
            server.end(watch, answered=True)
    assert [model for model, _ in server.asked] == ["nut_encoded", "pill_encoded", "nut_encoded"]


def test_a_server_rests_ten_times_as_long_as_a_probe_took(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    look(watch, 0.0)
    look(watch, 5.0)
    server.end(watch, answered=True)
    assert watch._probe is not None
    watch._probe.took_s = 4.0
    assert not any(look(watch, now_s) for now_s in (9.0, 40.0, 48.9))
    assert len(server.asked) == 1
    look(watch, 49.0)
    assert comes_true(lambda: len(server.asked) == 2)
    server.end(watch, answered=True)
    assert watch._probe is not None
    watch._probe.took_s = 30.0
    for now_s in (50.0, 109.0, 110.0):
        look(watch, now_s)
    assert comes_true(lambda: len(server.asked) == 3)  # after a minute at the latest


def test_a_slow_model_is_waited_for(repository: Path) -> None:
    assert patience_s([Work(0, 3, 8.0), Work(0, 3, 2.0)]) == 45.0
    for loading, step in ((True, STEP), (False, Work(waiting=0, batches=0, batch_s=0.0))):
        server = Server()
        watch = Hangs(server.ask, repository)
        for now_s in (0.0, 5.0):
            watch.look(work(7) | {"step": step}, loading=loading, now_s=now_s)
        assert comes_true(lambda server=server: server.asked == [("pill_encoded", hangs.UNKNOWN_S)])


def test_clients_that_send_pixels_leave_the_decoder_unused(repository: Path) -> None:
    """Nobody knows how long its batches take, and a hang is seen as soon."""
    config = repository / "pill_encoded" / "config.pbtxt"
    config.write_text('step {\n    model_name: "image_decoder_128"\n}\n' + config.read_text())
    server = Server()
    watch = Hangs(server.ask, repository)
    unused = {"image_decoder_128": Work(waiting=0, batches=0, batch_s=0.0)}
    for now_s in (0.0, 5.0):
        watch.look(work(7) | unused, loading=False, now_s=now_s)
    assert comes_true(lambda: server.asked == [("pill_encoded", 7.0)])


def test_a_hang_while_a_model_is_loaded_is_seen_soon_after(repository: Path) -> None:
    """As after a start: the first probe may take long, and no longer than any other once all is loaded."""
    server = Server()
    watch = Hangs(server.ask, repository)
    assert not any(look(watch, now_s, loading=True) for now_s in (0.0, 5.0, 20.0))
    assert comes_true(lambda: server.asked == [("pill_encoded", hangs.UNKNOWN_S)])
    assert not any(look(watch, now_s) for now_s in (21.0, 27.9))
    assert not look(watch, 28.0)  # eight seconds after the load
    assert not look(watch, 28.5)
    assert comes_true(lambda: len(server.asked) == 2)
    assert not look(watch, 36.4)
    assert look(watch, 36.5)


def test_it_says_when_a_category_was_probed(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    began_s = time.time()
    for now_s in (0.0, 5.0):
        look(watch, now_s)
    assert watch.probed_s["pill"][1] == float("inf")
    server.end(watch, answered=True)
    first_s, last_s = watch.probed_s["pill"]
    assert first_s <= began_s <= time.time() <= last_s


def test_nothing_is_asked_of_what_is_not_loaded(repository: Path) -> None:
    server = Server()
    watch = Hangs(server.ask, repository)
    assert not any(watch.look({"step": STEP}, loading=False, now_s=now) for now in (0.0, 10.0, 100.0))
    assert server.asked == []
