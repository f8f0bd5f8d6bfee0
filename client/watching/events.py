"""What `watch` says while it runs: one line an event, to standard error, with the time."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

from client.console import printable


class Events:
    """Writes events; threads may share it. A fault that goes on is told once, and its end too.

    Attributes:
        faults: those that go on, a sentence by their subject.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream, or to what is standard error when an event comes."""
        self._stream = stream
        self._lock = threading.Lock()
        self.faults: dict[str, str] = {}

    def tell(self, sentence: str) -> None:
        """Write one line."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            stream = self._stream or sys.stderr
            try:
                stream.write(f"{now} {printable(sentence)}\n")
                stream.flush()
            except (OSError, ValueError):
                return  # nobody reads it any more; what is judged is in the journal

    def begin(self, subject: str, sentence: str) -> None:
        """Tell of a fault unless it is told of already; another sentence about the same subject is another fault."""
        if self.faults.get(subject) != sentence:
            self.faults[subject] = sentence
            self.tell(sentence)

    def end(self, subject: str, sentence: str) -> None:
        """Tell that a fault is over, if it was told of."""
        if self.faults.pop(subject, None) is not None:
            self.tell(sentence)

    def forget(self, subject: str) -> None:
        """A fault is over, and nobody need hear of that."""
        self.faults.pop(subject, None)

    def count(self, waiting: int) -> None:
        """So many pictures wait now; who shows that overrides this."""
