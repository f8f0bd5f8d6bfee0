"""What a run of `watch` has done, in numbers and as its exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

GOOD, ANOMALIES, ERRORS = 0, 1, 2


@dataclass
class Tally:
    """Counts of one run.

    Attributes:
        good, bad: pictures that were judged, and are in the journal.
        unjudged: those that are in the journal as not judged.
        unread: files that could not be read, and are tried again by the next run.
        undelivered: messages that wait for their sinks.
        lost: frames of a source that could not be decoded or kept.
        fault: why the run ended before it was done; None where it did not.
    """

    good: int = 0
    bad: int = 0
    unjudged: int = 0
    unread: int = 0
    undelivered: int = 0
    lost: int = 0
    fault: str | None = None
    _marks: list[tuple[float, int]] = field(default_factory=lambda: [(time.monotonic(), 0)])

    @property
    def judged(self) -> int:
        """Pictures with a verdict."""
        return self.good + self.bad

    @property
    def exit_code(self) -> int:
        """Of a run that judges what is there and ends."""
        if self.fault or self.unjudged or self.unread or self.undelivered or self.lost:
            return ERRORS
        return ANOMALIES if self.bad else GOOD

    def count(self, *, anomalous: bool | None) -> None:
        """Count a picture that is in the journal; None: it was not judged."""
        if anomalous is None:
            self.unjudged += 1
        elif anomalous:
            self.bad += 1
        else:
            self.good += 1

    def rate(self) -> float:
        """Verdicts a minute since it was asked for last."""
        (before_s, before), now_s = self._marks.pop(), time.monotonic()
        self._marks.append((now_s, self.judged))
        return 60 * (self.judged - before) / max(now_s - before_s, 1e-3)

    def __str__(self) -> str:
        parts = [f"{self.judged:,} judged: {self.bad:,} anomalous, {self.good:,} good"]
        if self.unjudged:
            parts.append(f"{self.unjudged:,} cannot be judged")
        if self.unread:
            parts.append(f"{self.unread:,} cannot be read")
        if self.lost:
            parts.append(f"{self.lost:,} frames are lost")
        if self.undelivered:
            parts.append(f"{self.undelivered:,} messages wait for their sinks")
        return "; ".join(parts)
