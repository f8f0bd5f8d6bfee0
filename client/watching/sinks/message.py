"""One picture as it is told to others, and what a sink is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from client.console import printable
from client.predictions.prediction import Prediction

JUDGED, UNJUDGED = "picture.judged", "picture.unjudged"


@dataclass(frozen=True)
class Message:
    """What became of a picture.

    Attributes:
        id: the same whenever it is delivered; no other message has it.
        number: rises from message to message of a journal.
        image: the file as it was found.
        category: that it was judged as.
        prediction: the verdict; None where it was not judged.
        fault: why not; None where it was.
        moved_to: where it was to be moved; None where it stays, or is removed.
        recorded_at: when, UTC, in ISO 8601.
    """

    id: str
    number: int
    image: Path
    category: str
    prediction: Prediction | None
    fault: str | None
    moved_to: Path | None
    recorded_at: str

    def to_json(self) -> str:
        """As an object of JSON in ASCII: `type`, `timestamp` and `data`, as the Standard Webhooks have it.

        `data.verdict` is `good`, `bad` or `unjudged`. In names, bytes that are no text are written as `\\xff`.
        """
        data: dict[str, Any] = {
            "id": self.id,
            "number": self.number,
            "category": self.category,
            "image": printable(str(self.image)),
            "moved_to": self.moved_to and printable(str(self.moved_to)),
            "verdict": "unjudged",
            "fault": self.fault,
        }
        if self.prediction is not None:
            data["verdict"] = "bad" if self.prediction.anomalous else "good"
            data |= {
                name: value
                for name, value in asdict(self.prediction).items()
                if name not in ("image", "category", "overlay")
            }
        kind = UNJUDGED if self.prediction is None else JUDGED
        return json.dumps({"type": kind, "timestamp": self.recorded_at, "data": data}, allow_nan=False)


class SinkDown(Exception):  # noqa: N818 (what happened)
    """A sink takes nothing at the moment; the sentence says why."""


class SinkClosed(Exception):  # noqa: N818 (what happened)
    """Nobody will ever take anything from this sink again: standard output has no reader."""


class Sink(Protocol):
    """Takes messages.

    Attributes:
        name: what it is and where; the journal remembers by it what it has got.
    """

    name: str

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Deliver messages in their order; yields the number of one when it and all before it are delivered.

        Raises:
            SinkDown: it takes nothing; those that were yielded it has.
            SinkClosed: it never will again.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...
