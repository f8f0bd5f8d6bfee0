"""A `watch` in a thread of the test, against a scripted server, and files put where it looks."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import JudgeClient
from client.watching.database import JournalError
from client.watching.events import Events
from client.watching.journal import Journal, Judged, journal_path
from client.watching.tally import Tally
from client.watching.watch import Watch, watch
from tests.client.judging.scripted_server import png
from tests.deploy.conftest import comes_true

TIMEOUT_S = 2.0
WITHIN_S = 20.0
GOOD, BAD = 50, 150  # greys below and above the scripted server's threshold


class Running:
    """A `watch` and what it said.

    Attributes:
        tally: what it has done, once it has ended.
        error: that it ended with, if any.
    """

    def __init__(self, asked: Watch, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.asked, self.stop = asked, threading.Event()
        self.tally = Tally()
        self.error: Exception | None = None
        self._said = io.StringIO()
        self._connect = lambda: JudgeClient(url, category=asked.category, timeout_s=timeout_s)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.tally = watch(self.asked, self._connect, stop=self.stop, events=Events(self._said))
        except Exception as error:
            self.error = error

    @property
    def said(self) -> str:
        """Its events so far."""
        return self._said.getvalue()

    def judged(self) -> list[Judged]:
        """The journal's verdicts."""
        return read_journal(self.asked)

    def judges(self, count: int) -> bool:
        """Whether the journal comes to hold so many verdicts."""
        return comes_true(lambda: len(self.judged()) >= count, within_s=WITHIN_S)

    def says(self, words: str) -> bool:
        """Whether it comes to say that."""
        return comes_true(lambda: words in self.said, within_s=WITHIN_S)

    def end(self) -> Tally:
        """Stop it."""
        self.stop.set()
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.tally


def read_journal(asked: Watch) -> list[Judged]:
    path = asked.journal or journal_path(asked.folder)
    try:
        with Journal(path, read_only=True) as journal:
            return [each for each in journal.judged_since(0) if each.prediction is not None]
    except JournalError:  # it is just being made
        return []


@contextmanager
def watching(folder: Path, url: str, *, timeout_s: float = TIMEOUT_S, **options: Any) -> Iterator[Running]:
    """A `watch` of a folder for the length of a `with` block; quick to see what is new."""
    options = {"settle_s": 0.1, "poll_s": 0.02, **options}
    running = Running(Watch(folder, "pill", **options), url, timeout_s=timeout_s)
    try:
        yield running
    finally:
        running.end()


def judge_once(folder: Path, url: str, **options: Any) -> Running:
    """A `watch --once` that has ended."""
    options = {"settle_s": 0.1, "poll_s": 0.02, "once": True, "patience_s": TIMEOUT_S, **options}
    running = Running(Watch(folder, "pill", **options), url)
    running.thread.join(WITHIN_S)
    assert not running.thread.is_alive(), running.said
    running.end()
    return running


def put(path: Path, grey: int = GOOD) -> Path:
    """A picture renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(png(grey))
    return temporary.rename(path)


def names(judged: list[Judged]) -> list[str]:
    return [Path(each.prediction.image).name for each in judged if each.prediction is not None]
