"""Old pictures removed, so that the disk does not fill up; their rows stay, and whatever is marked."""

from __future__ import annotations

import sys
import threading
import traceback

from client.files import StorageError, storage_errors
from client.page.state import State
from client.page.store import cleaning

EVERY_S = 30.0
AT_A_TIME = 200


class Cleaner:
    """Keeps the last pictures, in a thread of its own; by their number, so that no clock can remove them."""

    def __init__(self, keep: int, state: State) -> None:
        self._keep, self._state, self._stop = keep, state, threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleaner", daemon=True)

    def start(self) -> None:
        """Begin at once."""
        self._thread.start()

    def close(self) -> None:
        """End after the pictures in hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                while not self._stop.is_set() and clean(self._state, self._keep):
                    pass
                self._state.notice("cleaning", None)
            except StorageError as error:
                self._state.notice("cleaning", f"Old pictures are not removed: {error.message}")
            except Exception as error:  # the thread must live on, and say so
                traceback.print_exc(file=sys.stderr)
                self._state.notice(
                    "cleaning", f"Old pictures are not removed: {error!r}; the page's log says where."
                )
            self._stop.wait(EVERY_S)


def clean(state: State, keep: int) -> int:
    """Remove some of the pictures before the last `keep`; returns how many.

    Raises:
        StorageError: the database cannot be written, or a file not removed.
    """
    places = cleaning.forget_pictures(state.database, keep=keep, limit=AT_A_TIME)
    for place in places:
        with storage_errors(state.database.pictures / place):
            (state.database.pictures / place).unlink(missing_ok=True)
    return len(places)
