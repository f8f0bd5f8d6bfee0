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
from client.page.inspecting.watches import FolderWatch
from client.watching.journal import journal_path
from client.watching.tally import Tally
from tests.client.page.desk import make_state


def test_a_watch_that_ends_is_told_and_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Exception | str] = [
        ImageFileError("drop does not exist."),
        StorageError("drop is watched by another process."),
        ZeroDivisionError("oops"),
        "the journal cannot be written.",
    ]
    told: list[str] = []

    def watch(asked: Any, _connect: Any, *, stop: threading.Event) -> Tally:
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
