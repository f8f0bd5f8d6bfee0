"""Folders that the page watches itself, as `python -m client watch` does: a thread each, as long as the page runs.

Each picture is judged exactly once, over restarts of all sides. Where a watch ends, the page says why and starts anew.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from pathlib import Path

from client.core.errors import ClientError
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.page.state import State
from client.watching import watch as watching
from client.watching.events import Events
from client.watching.journal import journal_path

COUNT_S = 2.0  # between two words on how many pictures wait
MOST_TOLD = 3  # faults of one folder, in full
AGAIN_S = 5.0  # until a watch that ended is started anew


class ToldOnPage(Events):
    """What a watch says, to standard error as ever, and to every open page as long as it goes on."""

    def __init__(self, folder: Path, category: str, state: State) -> None:
        super().__init__()
        self._folder, self._category, self._state = folder, category, state
        self._waiting, self._next_s = 0, 0.0

    def begin(self, subject: str, sentence: str) -> None:
        """Tell of a fault."""
        super().begin(subject, sentence)
        self.show()

    def end(self, subject: str, sentence: str) -> None:
        """Take a fault back."""
        super().end(subject, sentence)
        self.show()

    def forget(self, subject: str) -> None:
        """Take a fault back without a word."""
        if subject in self.faults:
            super().forget(subject)
            self.show()

    def count(self, waiting: int) -> None:
        """Count what waits among the shift's pictures; open pages hear of it once in a while."""
        self._state.waiting[str(self._folder)] = (self._category, waiting)
        if waiting != self._waiting and time.monotonic() >= self._next_s:
            self._waiting, self._next_s = waiting, time.monotonic() + COUNT_S
            self._state.hub.publish("shift", {})

    def clear(self) -> None:
        """The watch has ended: nothing is known any more of what goes on in the folder."""
        self.faults.clear()
        self.show()
        if self._state.waiting.pop(str(self._folder), None):
            self._state.hub.publish("shift", {})

    def show(self) -> None:
        """Let every open page know the faults that go on."""
        told = list(self.faults.values())
        more = f" {len(told) - MOST_TOLD} more; the page's log has them." if len(told) > MOST_TOLD else ""
        sentence = f"{self._folder}: {' '.join(told[:MOST_TOLD])}{more}" if told else None
        self._state.notice(f"faults of {self._folder}", sentence)


class FolderWatch:
    """One folder, watched.

    Attributes:
        journal: where its verdicts are written.
    """

    def __init__(self, category: str, folder: Path, state: State, *, timeout_s: float) -> None:
        self.journal = journal_path(folder)
        self._asked = watching.Watch(folder=folder, category=category)
        self._state, self._timeout_s, self._stop = state, timeout_s, threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{category}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End after the pictures in hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        about = f"watch {self._asked.folder}"
        while not self._stop.is_set():
            self._state.notice(about, None)
            events = ToldOnPage(self._asked.folder, self._asked.category, self._state)
            try:
                fault = watching.watch(self._asked, self._connect, stop=self._stop, events=events).fault
            except (ClientError, StorageError) as error:
                fault = error.message
            except Exception as error:  # the page must live on, and say so
                traceback.print_exc(file=sys.stderr)
                fault = f"{error!r}; the page's log says where."
            events.clear()
            if not self._stop.is_set():
                told = fault or "the watch ended."
                self._state.notice(about, f"Nothing comes from {self._asked.folder}: {told}")
                self._stop.wait(AGAIN_S)

    def _connect(self) -> JudgeClient:
        return JudgeClient(self._state.url, category=self._asked.category, timeout_s=self._timeout_s)
