"""Messages for sinks, and a journal with some pictures for a delivery."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.watching.arrivals import Arrival
from client.watching.events import Events
from client.watching.journal import Journal
from client.watching.rows import Entry
from client.watching.sinks.delivery import Delivery
from client.watching.sinks.message import Message, Sink
from client.watching.sinks.outbox import Outbox
from tests.client.samples import make_prediction
from tests.deploy.conftest import comes_true

WITHIN_S = 20.0


def message(number: int = 1, *, anomalous: bool = False, judged: bool = True) -> Message:
    return Message(
        id=f"journal-{number}",
        number=number,
        image=Path(os.fsdecode(b"drop/t\xfc.png")),
        category="pill",
        prediction=make_prediction(f"drop/{number}.png", anomalous=anomalous) if judged else None,
        fault=None if judged else "torn",
        moved_to=None,
        recorded_at="2026-11-27T00:00:00+00:00",
    )


class Told:
    """A journal, a sink that is delivered to, and what was said of it."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.said = io.StringIO()
        self.journal = Journal(folder / "j")
        self.journal.belong_to(folder, "pill")
        self.outbox = Outbox(self.journal, "pill", sink.name)
        self.delivery = Delivery(sink, self.outbox, Events(self.said))

    def record(self, *names: str) -> None:
        entries = [
            Entry(Arrival(Path(name), 1, 2, 3), b"d", replace(make_prediction(), image=name))
            for name in names
        ]
        self.journal.record(entries)
        self.delivery.wake()

    def has_delivered_all(self) -> bool:
        return comes_true(lambda: self.delivery.count() == 0, within_s=WITHIN_S)

    def says(self, words: str) -> bool:
        return comes_true(lambda: words in self.said.getvalue(), within_s=WITHIN_S)


@contextmanager
def told(folder: Path, sink: Sink) -> Iterator[Told]:
    each = Told(folder, sink)
    try:
        yield each
    finally:
        each.delivery.close(within_s=1)
        each.journal.close()
