"""A journal that does not grow for ever: what is old, delivered and no longer in the folder is forgotten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.watching.database import JournalError
from client.watching.journal import Journal

EVERY_S = 3600.0
PAGE = 1000


class Forgetting:
    """Looks once an hour for what can be forgotten."""

    def __init__(self, journal: Journal, folder: Path, keep_days: float | None, sinks: Sequence[str]) -> None:
        """Forget pictures of before `keep_days` days that all `sinks` have got; None forgets nothing."""
        self._journal, self._folder, self._keep_days, self._sinks = journal, folder, keep_days, sinks
        self._look_at_s = 0.0

    def look(self) -> None:
        """Forget what can be forgotten, if it is time. A journal that cannot be written is told of elsewhere."""
        if self._keep_days is None or time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + EVERY_S
        before, number = datetime.now(UTC) - timedelta(days=self._keep_days), 0
        try:
            while page := self._journal.settled_before(before, sinks=self._sinks, after=number, limit=PAGE):
                number = page[-1][0]
                # What still lies there would be judged again.
                self._journal.forget([each for each, name in page if not (self._folder / name).exists()])
        except JournalError:
            return
