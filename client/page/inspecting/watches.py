"""Folders that the page watches itself: `python -m client watch` for each, a process each, as long as the page.

It is the same `watch` as elsewhere: each picture exactly once, over restarts of all sides. Where it ends, the page says
why and starts it again.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from client.page.options import Options
from client.page.state import State
from client.watching.journal import journal_path

AGAIN_S = 5.0  # until a watch that ended is started anew
END_S = 20.0  # for the pictures in hand
SAID = 2000  # characters of what it said last


class Watch:
    """One folder, watched."""

    def __init__(self, category: str, folder: Path, options: Options, state: State) -> None:
        self._about, self._state = f"watch {folder}", state
        self._command = [
            sys.executable, "-m", "client", "watch", str(folder),
            "--category", category, "--url", options.url, "--timeout-s", str(options.timeout_s),
        ]  # fmt: skip
        self._folder, self._stop = folder, threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=self._about, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End after the pictures in hand."""
        with self._guard:
            self._stop.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(END_S)
        with self._guard:
            if self._thread.is_alive() and self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                if self._stop.is_set():
                    return
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    text=True, encoding="utf-8", errors="backslashreplace",
                )  # fmt: skip
            self._state.notice(self._about, None)
            said = self._listen(self._process)
            self._process.wait()
            if not self._stop.is_set():
                self._state.notice(
                    self._about,
                    f"Nothing comes from {self._folder}: {said}; it is watched again in a moment.",
                )
                self._stop.wait(AGAIN_S)

    @staticmethod
    def _listen(process: subprocess.Popen[str]) -> str:
        """Read what it says until it ends; the last of it."""
        last = "its process ended"
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if text := line.strip():
                    last = text.removeprefix("Error: ")[:SAID].rstrip(".")
        return last


def start_watches(options: Options, state: State, parts: ExitStack) -> list[Path]:
    """Watch the folders of `--watch`; returns the journals to follow."""
    journals = []
    for category, folder in options.feeds.watched:
        watch = Watch(category, folder, options, state)
        parts.callback(watch.close)
        watch.start()
        journals.append(journal_path(folder))
    return journals
