"""Which files of the folder are pictures that the journal has, and what has become of those."""

from __future__ import annotations

import contextlib
from pathlib import Path

from client.watching.arrivals import Arrival, digest_of
from client.watching.database import JournalError
from client.watching.events import Events
from client.watching.journal import Journal
from client.watching.rows import REMOVED, Known


class Recorded:
    """Whether a file is a picture that was recorded; where it is, and should not be there, that is seen to."""

    def __init__(self, folder: Path, journal: Journal, events: Events) -> None:
        """Look into a journal."""
        self._folder, self._journal, self._events = folder, journal, events
        self._last_before = journal.last_number()
        self._unjudged: dict[Path, None] = {}
        self._told: set[int] = set()

    def is_known(self, arrival: Arrival) -> bool:
        """Whether a file was recorded: by name, size and times, and where those say too little by its content.

        Raises:
            JournalError: the journal cannot be read, or it was removed.
        """
        if not self._journal.path.exists():
            raise JournalError(
                f"{self._journal.path} was removed while it was in use; start watch again. What lies in the "
                "folder is then judged again."
            )
        same = self._same(arrival, self._journal.find(arrival))
        if same is None:
            return False
        if not same.judged and same.number <= self._last_before:
            self._unjudged[arrival.name] = None
        if same.settled and same.target is not None:
            self._is_there_again(same, arrival)
        return True

    def unjudged(self) -> list[Path]:
        """Files that lie there, and that an earlier run recorded as not judged."""
        return [name for name in self._unjudged if (self._folder / name).exists()]

    def _same(self, arrival: Arrival, known: list[Known]) -> Known | None:
        """Which of these pictures, which have its name, size and time, a file is; None: what was written over them."""
        which = (arrival.inode, arrival.ctime_ns)
        for each in known:
            same = which == (each.arrival.inode, each.arrival.ctime_ns) and not arrival.is_coarse
            if same or not each.digest:  # none is of a file that is too large to be read
                return each
        if known:
            with contextlib.suppress(OSError):
                digest = digest_of((self._folder / arrival.name).read_bytes())
                return next((each for each in known if each.digest == digest), None)
        return None

    def _is_there_again(self, known: Known, arrival: Arrival) -> None:
        """A file that was moved lies there: a power failure has undone that, or somebody put it there again."""
        target = known.target
        if target is not None and target != REMOVED and not target.exists():
            self._journal.aim(known.number, target)
        elif known.number not in self._told:
            self._told.add(known.number)
            self._events.tell(
                f"{arrival.name} was judged already, as number {known.number}; it is not judged again, and stays."
            )
