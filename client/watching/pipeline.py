"""Pictures from the folder to the journal: found, asked about by several threads, recorded in their order, moved."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from client.core.errors import AnswerError, DeadlineExceeded, ServerError, ServerFault
from client.watching.arrivals import Arrival
from client.watching.asking import End, Outcome
from client.watching.database import JournalError, patiently
from client.watching.events import Events
from client.watching.journal import Journal
from client.watching.moving import Destinations, Mover
from client.watching.rows import Entry
from client.watching.sources.folder import DropFolder
from client.watching.tally import Tally

QUEUE, LOW = 256, 32  # pictures that wait in memory, and below which the folder is looked at again
BROKEN_S = 5.0  # since a file was written last, after which it will not become whole
BROKEN_RETRY_S, UNREADABLE_RETRY_S, MOVING_RETRY_S = 0.5, 10.0, 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0  # for a server that is away
SUSPECT = (ServerFault, AnswerError, DeadlineExceeded)  # it may be the picture
SUSPECT_RETRY_S = 2.0
MOST_FAILURES = 3  # of one picture, until others are let past it
JOURNAL_WAIT_S = 1.0


@dataclass
class _Failures:
    """Of one picture: how many, and how many verdicts there were when the others were let past it."""

    count: int = 0
    judged_before: int | None = None


class Pipeline:
    """The work of one `watch`; one thread calls it.

    Attributes:
        tally: what was done.
        has_looked: whether the last step has looked into the folder, and found nothing new.
    """

    def __init__(
        self,
        folder: DropFolder,
        journal: Journal,
        mover: Mover,
        *,
        ask: Callable[[Arrival], Outcome],
        destinations: Destinations,
        in_flight: int,
        patience_s: float | None,
        events: Events,
        stop: threading.Event,
        recorded: Sequence[Callable[[], None]],
    ) -> None:
        """Prepare the work.

        Args:
            folder, journal, mover: its parts.
            ask: asks about one picture; threads call it.
            destinations: where pictures go once they are judged.
            in_flight: pictures that are asked about at a time.
            patience_s: seconds for which a server that is away is waited for; None is for ever, and a file that cannot
                be read is then tried again and again.
            events: told what happens.
            stop: once it is set, nothing new is asked about.
            recorded: called when there is something new in the journal.
        """
        self._folder, self._journal, self._mover, self._ask = folder, journal, mover, ask
        self._destinations, self._in_flight, self._patience_s = destinations, in_flight, patience_s
        self._events, self._stop, self._recorded = events, stop, recorded
        self.tally = Tally()
        self.has_looked = False
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="asking")
        self._wake = threading.Event()
        self._queue: deque[Arrival] = deque()
        self._pending: deque[tuple[Arrival, Future[Outcome]]] = deque()
        self._returned: list[Arrival] = []  # by a server that is away, in their order
        self._delayed: list[tuple[float, int, Arrival]] = []  # a heap by when they are tried again
        self._serial = itertools.count()
        self._busy: set[Arrival] = set()
        self._given_up: set[Arrival] = set()
        self._failures: dict[Arrival, _Failures] = {}
        self._broken_since_s: dict[Arrival, float] = {}
        self._away_since_s: float | None = None
        self._away_kind: type[ServerError] | None = None
        self._wait_s, self._ask_at_s, self._look_at_s, self._move_at_s = FIRST_WAIT_S, 0.0, 0.0, 0.0
        self._release: int | None = None

    @property
    def waiting(self) -> int:
        """New pictures that are known and not judged."""
        return len(self._busy) + self._folder.waiting

    def step(self, poll_s: float) -> bool:
        """Do what can be done now; says whether there was anything to do, or there is something to wait for."""
        try:
            self._move()  # first, what was interrupted
            self._look(poll_s)
            self._send()
            self._receive()
            self._events.end("journal", "The journal can be used again.")
        except JournalError as error:
            if not error.may_pass:
                raise
            self._wait_for_journal(error)
        awaited = self._folder.waiting - (0 if self._patience_s is None else len(self._folder.held))
        return bool(self._busy or awaited or not self._folder.there)

    def wait(self, seconds: float) -> None:
        """Wait until an answer has come, and no longer than that."""
        if not (self._pending and self._pending[0][1].done()):
            self._wake.wait(seconds)
        self._wake.clear()

    def close(self) -> None:
        """Wait for the answers on their way, record them, and end."""
        for _, future in self._pending:
            future.cancel()
        self._pool.shutdown(wait=True)
        self._pending = deque(
            (arrival, future) for arrival, future in self._pending if not future.cancelled()
        )
        self._receive()
        self._mover.finish()

    def abandon(self) -> None:
        """End without waiting; what was not recorded is judged by the next run."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, poll_s: float) -> None:
        """Fill the queue from the folder, and with what is to be tried again."""
        now_s, self.has_looked = time.monotonic(), False
        while self._delayed and self._delayed[0][0] <= now_s:
            self._queue.append(heapq.heappop(self._delayed)[2])
        if self._stop.is_set() or len(self._queue) > LOW or now_s < self._look_at_s:
            return
        idle = not self._busy
        found = self._folder.ready(QUEUE - len(self._queue), busy=self._busy | self._given_up)
        self._busy.update(found)
        self._queue.extend(found)
        self.has_looked = idle and not found
        took_s = time.monotonic() - now_s
        self._look_at_s = now_s + max(poll_s, 4 * took_s)  # a large folder is not looked at all the time

    def _send(self) -> None:
        if self._stop.is_set() or self._returned or time.monotonic() < self._ask_at_s:
            return
        window = self._in_flight if self._away_since_s is None else 1
        while self._queue and len(self._pending) < window:
            arrival = self._queue.popleft()
            future = self._pool.submit(self._ask, arrival)
            future.add_done_callback(lambda _: self._wake.set())
            self._pending.append((arrival, future))

    def _receive(self) -> None:
        """Record what was answered, in the order in which it was asked."""
        outcomes = list(self._answered())
        self._send()  # the server works while the journal is written
        entries = [entry for outcome in outcomes if (entry := self._entry(outcome))]
        if entries:
            self._record(entries)
        if self._returned and not self._pending:
            self._queue.extendleft(reversed(self._returned))
            self._returned.clear()

    def _answered(self) -> Iterator[Outcome]:
        while self._pending and self._pending[0][1].done():
            yield self._pending.popleft()[1].result()

    def _entry(self, outcome: Outcome) -> Entry | None:
        """What is to be recorded of an outcome; None where nothing is, yet."""
        arrival = outcome.arrival
        if outcome.end is End.FAILED:
            return self._failed(outcome)
        if outcome.end in (End.JUDGED, End.REFUSED):
            self._tell_back()
        if outcome.end is End.CHANGED:
            self._let_go(arrival)
            return None
        if outcome.end is End.UNREADABLE:
            self._unreadable(outcome)
            return None
        if outcome.end is End.BROKEN and not self._is_broken_for_good(arrival):
            self._later(arrival, BROKEN_RETRY_S)
            return None
        if outcome.prediction is None:
            return self._unjudged(outcome)
        target = self._destinations.target(arrival.name, anomalous=outcome.prediction.anomalous)
        return Entry(arrival, outcome.digest, outcome.prediction, target=target)

    def _unreadable(self, outcome: Outcome) -> None:
        self._events.begin(
            f"file {outcome.arrival.name}", f"{outcome.message} It was not judged, and is tried again."
        )
        if self._patience_s is None:
            self._later(outcome.arrival, UNREADABLE_RETRY_S)
        else:
            self.tally.unread += 1
            self._busy.discard(outcome.arrival)
            self._given_up.add(outcome.arrival)

    def _unjudged(self, outcome: Outcome) -> Entry:
        target = self._destinations.target(outcome.arrival.name, anomalous=None)
        return Entry(outcome.arrival, outcome.digest, None, outcome.message, target)

    def _is_broken_for_good(self, arrival: Arrival) -> bool:
        """Whether a file that is no whole image has not been written to for so long that it will not become one."""
        now_s = time.monotonic()
        since_s = self._broken_since_s.setdefault(arrival, now_s)
        return now_s - since_s >= BROKEN_S or self._folder.is_older(arrival, BROKEN_S)

    def _failed(self, outcome: Outcome) -> Entry | None:
        """A server that gave no verdict is waited for; a picture that makes it fail is left aside after a while."""
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        if (
            outcome.error is not None and type(outcome.error) is not self._away_kind
        ):  # in other words is no news
            self._away_kind = type(outcome.error)
            self._events.begin("server", f"{outcome.error.message} Pictures wait.")
        self._ask_at_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        if self._patience_s is not None and now_s - self._away_since_s > self._patience_s:
            self.tally.fault = outcome.message
        failures = self._failures.setdefault(outcome.arrival, _Failures())
        failures.count += isinstance(outcome.error, SUSPECT)
        if failures.count < MOST_FAILURES:
            self._returned.append(outcome.arrival)  # to be asked about again first, in the order as before
            return None
        if failures.judged_before is not None and self.tally.judged > failures.judged_before:
            return self._unjudged(outcome)
        failures.judged_before = self.tally.judged
        self._later(outcome.arrival, SUSPECT_RETRY_S)
        return None

    def _tell_back(self) -> None:
        if self._away_since_s is not None:
            away_s = time.monotonic() - self._away_since_s
            self._events.end("server", f"The server judges again, after {away_s:.0f} s.")
        self._away_since_s, self._away_kind, self._wait_s, self._ask_at_s = None, None, FIRST_WAIT_S, 0.0

    def _later(self, arrival: Arrival, seconds: float) -> None:
        heapq.heappush(self._delayed, (time.monotonic() + seconds, next(self._serial), arrival))

    def _let_go(self, arrival: Arrival) -> None:
        """A picture is done with, or gone."""
        self._busy.discard(arrival)
        self._failures.pop(arrival, None)
        self._broken_since_s.pop(arrival, None)
        self._events.forget(f"file {arrival.name}")
        self._folder.forget(arrival)

    def _record(self, entries: Sequence[Entry]) -> None:
        numbers: list[int | None] = []
        if not patiently(lambda: numbers.extend(self._journal.record(entries)), wait=self._wait_for_journal):
            return  # stopped while the disk was full: the next run judges them again
        for call in self._recorded:
            call()
        for number, entry in zip(numbers, entries, strict=True):
            self._let_go(entry.arrival)
            if number is not None:
                self._tell(entry)
        self._move_at_s = 0.0

    def _tell(self, entry: Entry) -> None:
        prediction = entry.prediction
        self.tally.count(anomalous=None if prediction is None else prediction.anomalous)
        if prediction is None:
            self._events.tell(f"Not judged: {entry.fault}")
            return
        if self._release not in (None, prediction.release_id):
            self._events.tell(f"Release {prediction.release_id} judges now; before it was {self._release}.")
        self._release = prediction.release_id
        if prediction.anomalous:
            self._events.tell(
                f"Anomalous: {entry.arrival.name}, score {prediction.score:.4f} above {prediction.threshold:.4f}."
            )

    def _wait_for_journal(self, error: JournalError) -> bool:
        """Tell of it once, wait a moment, and say whether to try again."""
        self._events.begin("journal", f"{error.message} Nothing is judged until then.")
        return not self._stop.wait(JOURNAL_WAIT_S)

    def _move(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._move_at_s:
            self._move_at_s = now_s + MOVING_RETRY_S
            self._mover.finish()
