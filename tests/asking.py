"""Clients that ask a server all the time and note what they saw; for tests of faults and for their benchmark."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

DEADLINE_S = 5.0
PAUSE_S = 0.02  # of a client after an error
RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
# Errors after which nothing was judged, and the same request may be sent again.
TRANSIENT = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "no available versions", "is not healthy")


def one_image(size: int = 64) -> grpcclient.InferInput:
    """A grey image, as a request's input."""
    shape = (1, size, size, 3)
    return grpcclient.InferInput("image", list(shape), "UINT8").set_data_from_numpy(
        np.full(shape, 128, np.uint8)
    )


@dataclass(frozen=True)
class Answer:
    """How a request ended.

    Attributes:
        sent_s, ended_s: on the clock of `time.monotonic`.
        status: `answered`, or gRPC's status code and the message.
    """

    sent_s: float
    ended_s: float
    status: str


@dataclass
class Clients:
    """What clients saw that ask one after the other, all the time.

    Attributes:
        category, size: what they ask about; pixels of a side.
        patience_s: seconds for which each sends a request again that nobody judged; 0 sends none again.
        answers: in the order in which they ended.
        stopping: set, it ends them.
    """

    category: str
    size: int = 64
    patience_s: float = 0
    answers: list[Answer] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def keep_asking(self, url: str) -> None:
        """Ask until it is to stop."""
        with grpcclient.InferenceServerClient(url, channel_args=RECONNECT) as client:
            while not self.stopping.is_set():
                self.answers.append(self.ask(client))
                if self.answers[-1].status != "answered":
                    time.sleep(PAUSE_S)

    def ask(self, client: grpcclient.InferenceServerClient) -> Answer:
        """One request, sent again while the patience lasts."""
        sent_s = time.monotonic()
        while True:
            answer = ask(client, self.category, size=self.size)
            transient = any(words in answer.status for words in TRANSIENT)
            if not transient or time.monotonic() - sent_s > self.patience_s:
                return Answer(sent_s, answer.ended_s, answer.status)
            time.sleep(PAUSE_S)

    def since(self, began_s: float) -> list[Answer]:
        """What was sent after a moment."""
        return [answer for answer in self.answers if answer.sent_s >= began_s]

    def outage_s(self, began_s: float) -> float:
        """From a moment to the end of the last error after it."""
        faults = [answer.ended_s for answer in self.since(began_s) if answer.status != "answered"]
        return max(faults, default=began_s) - began_s

    def say(self, fault: str, began_s: float) -> None:
        """Print what they saw, for who reads the tests' output."""
        seen = Counter(answer.status[:70] for answer in self.since(began_s))
        longest = max((answer.ended_s - answer.sent_s for answer in self.since(began_s)), default=0)
        print(
            f"\n{fault}: errors for {self.outage_s(began_s):.1f} s, longest call {longest:.2f} s, {dict(seen)}"
        )


def ask(client: grpcclient.InferenceServerClient, category: str, *, size: int = 64) -> Answer:
    """One request."""
    sent_s = time.monotonic()
    try:
        client.infer(category, [one_image(size)], client_timeout=DEADLINE_S)
        status = "answered"
    except InferenceServerException as error:
        status = f"{error.status()} {error.message()}"
    return Answer(sent_s, time.monotonic(), status)


@contextmanager
def asking(url: str, clients: Clients, *, count: int = 4) -> Iterator[Clients]:
    """So many of these clients ask a server within the block."""
    threads = [threading.Thread(target=clients.keep_asking, args=(url,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.stopping.set()
        for thread in threads:
            thread.join()
