"""A folder that the page watches itself: where that ends, the page says why and begins anew."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from client.core.errors import ImageFileError
from client.files import StorageError
from client.page.inspecting import watches
from client.page.inspecting.watches import FolderWatch, ToldOnPage
from client.watching.journal import journal_path
from client.watching.tally import Tally
from tests.client.page.desk import client_of, make_state, png


def test_a_watch_that_ends_is_told_and_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Exception | str] = [
        ImageFileError("drop does not exist."),
        StorageError("drop is watched by another process."),
        ZeroDivisionError("oops"),
        "the journal cannot be written.",
    ]
    told: list[str] = []

    def watch(asked: Any, _connect: Any, *, stop: threading.Event, events: Any) -> Tally:
        assert not events.faults
        assert (asked.folder, asked.category) == (tmp_path / "drop", "pill")
        if not ends:
            stop.wait(20)
            return Tally()
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        tally = Tally()
        tally.fault = end
        return tally

    state = make_state(tmp_path / "data")
    monkeypatch.setattr(watches.watching, "watch", watch)
    monkeypatch.setattr(watches, "AGAIN_S", 0.01)
    monkeypatch.setattr(state, "notice", lambda _about, sentence: told.append(sentence) if sentence else None)
    watched = FolderWatch("pill", tmp_path / "drop", state, timeout_s=1)
    assert watched.journal == journal_path(tmp_path / "drop")
    watched.start()
    until = time.monotonic() + 20
    while len(told) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    watched.close()
    state.database.close()
    said = (
        "does not exist.",
        "another process.",
        "ZeroDivisionError('oops'); the page's log says where.",
        "written.",
    )
    assert [sentence.endswith(end) for sentence, end in zip(told, said, strict=True)] == [True] * 4
    assert all(sentence.startswith(f"Nothing comes from {tmp_path / 'drop'}: ") for sentence in told)


def test_what_a_watch_says_is_on_the_page_as_long_as_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = make_state(tmp_path / "data")
    events = ToldOnPage(tmp_path / "drop", "pill", state)
    with client_of(state) as client:

        def live(category: str = "pill") -> tuple[list[str], int]:
            answer = client.get(f"/api/live?category={category}").json()
            return answer["notices"], answer["shift"]["waiting"]

        events.begin("server", "Nobody answers. Pictures wait.")
        events.count(7)
        assert live() == ([f"{tmp_path / 'drop'}: Nobody answers. Pictures wait."], 7)
        assert live("cable")[1] == 0
        events.end("server", "The server judges again.")
        for number in range(5):
            events.begin(f"file {number}", f"{number}.png cannot be read.")
        assert live()[0][0].endswith("2.png cannot be read. 2 more; the page's log has them.")
        for number in range(5):
            events.forget(f"file {number}")
        events.count(0)
        assert live() == ([], 0)
        events.begin("server", "Nobody answers.")
        events.count(7)
        events.clear()
        assert live() == ([], 0)
    assert "Nobody answers" in capsys.readouterr().err


def test_a_server_that_is_away_is_told_by_the_page_s_own_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, state = tmp_path / "drop", make_state(tmp_path / "data")
    drop.mkdir()
    (drop / "a.png").write_bytes(png())
    watched = FolderWatch("pill", drop, state, timeout_s=0.3)
    watched.start()
    until = time.monotonic() + 20
    while not (state.notices and state.waiting_of("pill")) and time.monotonic() < until:
        time.sleep(0.01)
    (notice,), waiting = state.notices.values(), state.waiting_of("pill")
    watched.close()
    state.database.close()
    assert notice.startswith(f"{drop}: ")
    assert waiting == 1
