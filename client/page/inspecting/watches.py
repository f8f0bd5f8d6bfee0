"""Folders that the page watches itself, as `python -m client watch` does: a thread each, as long as the page runs.

Each picture is judged exactly once, over restarts of all sides. Where a watch ends, the page says why and starts anew.
"""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path

from client.core.errors import ClientError
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.page.state import State
from client.watching import watch as watching
from client.watching.journal import journal_path

AGAIN_S = 5.0  # until a watch that ended is started anew


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
            try:
                fault = watching.watch(self._asked, self._connect, stop=self._stop).fault
            except (ClientError, StorageError) as error:
                fault = error.message
            except Exception as error:  # the page must live on, and say so
                traceback.print_exc(file=sys.stderr)
                fault = f"{error!r}; the page's log says where."
            if not self._stop.is_set():
                told = fault or "the watch ended."
                self._state.notice(about, f"Nothing comes from {self._asked.folder}: {told}")
                self._stop.wait(AGAIN_S)

    def _connect(self) -> JudgeClient:
        return JudgeClient(self._state.url, category=self._asked.category, timeout_s=self._timeout_s)
