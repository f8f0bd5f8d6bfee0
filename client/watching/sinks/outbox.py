"""What a sink has not got yet: the journal's pictures after the last one that was delivered to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from client.predictions.prediction import Prediction
from client.watching.database import connect, transaction
from client.watching.journal import Journal
from client.watching.rows import REMOVED
from client.watching.sinks.message import Message


class Outbox:
    """The messages for one sink; one thread uses it, others may ask how many wait.

    What was delivered is not forced to the disk: after a power failure a few messages are delivered again.
    """

    def __init__(self, journal: Journal, category: str, sink: str) -> None:
        """Begin where the sink stopped; a new one gets what is recorded from now on.

        Raises:
            JournalError: the journal cannot be used.
        """
        self._journal, self._category, self._sink = journal, category, sink
        self._lock = threading.Lock()
        self._database = connect(journal.path, durable=False)
        with transaction(self._database, journal.path) as database:
            database.execute(
                "INSERT OR IGNORE INTO sinks VALUES (?, (SELECT coalesce(max(number), 0) FROM pictures))",
                (sink,),
            )

    def close(self) -> None:
        """Close the connection to the journal."""
        with self._lock:
            self._database.close()

    def waiting(self, limit: int) -> list[Message]:
        """The oldest messages that were not delivered, in their order.

        Raises:
            JournalError: the journal cannot be read.
        """
        rows = self._ask(
            "SELECT number, name, prediction, fault, target, recorded_at FROM pictures "
            "WHERE number > (SELECT delivered FROM sinks WHERE name = ?) ORDER BY number LIMIT ?",
            self._sink,
            limit,
        )
        return [self._message(row) for row in rows]

    def count(self) -> int:
        """How many wait.

        Raises:
            JournalError: the journal cannot be read.
        """
        ((count,),) = self._ask(
            "SELECT count(*) FROM pictures WHERE number > (SELECT delivered FROM sinks WHERE name = ?)",
            self._sink,
        )
        return int(count)

    def delivered(self, number: int) -> None:
        """Write down that all messages up to that number were delivered.

        Raises:
            JournalError: the journal cannot be written.
        """
        with self._lock, transaction(self._database, self._journal.path) as database:
            database.execute("UPDATE sinks SET delivered = ? WHERE name = ?", (number, self._sink))

    def _ask(self, query: str, *values: Any) -> list[Any]:
        with self._lock, transaction(self._database, self._journal.path, writes=False) as database:
            return database.execute(query, values).fetchall()

    def _message(self, row: Any) -> Message:
        number, name, prediction, fault, target, recorded_at = row
        moved_to = Path(os.fsdecode(target)) if target else None
        return Message(
            id=f"{self._journal.id}-{number}",
            number=number,
            image=self._journal.place(Path(os.fsdecode(name)), REMOVED),
            category=self._category,
            prediction=None if prediction is None else Prediction.from_json(prediction),
            fault=fault,
            moved_to=moved_to,
            recorded_at=recorded_at,
        )
