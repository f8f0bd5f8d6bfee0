"""A supervised server with the tiny category, and clients that ask it all the time and note what they saw."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from deploy.supervision.events import events_path
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from tests.conftest import CATEGORY
from tests.products import ROOT, copy_backends
from tests.tiny_products import publish_tiny

DEADLINE_S = 5.0
PAUSE_S = 0.02  # of a client after an error


@pytest.fixture(scope="module")
def published(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the tiny category."""
    repository = copy_backends(tmp_path_factory.mktemp("supervised") / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    return repository


@pytest.fixture(scope="module")
def supervisor(published: Path) -> Iterator[Supervisor]:
    """A server that the tests of a module break one after the other."""
    log = published.parent / "log"
    with supervised_server(
        repository=published, log=log, triton_env=ROOT / ".triton", health_port=0
    ) as running:
        yield running


def one_image() -> grpcclient.InferInput:
    return grpcclient.InferInput("image", [1, 64, 64, 3], "UINT8").set_data_from_numpy(
        np.full((1, 64, 64, 3), 128, np.uint8)
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
    """What clients saw that ask one after the other, all the time."""

    answers: list[Answer] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def keep_asking(self, url: str) -> None:
        with grpcclient.InferenceServerClient(url, channel_args=RECONNECT) as client:
            while not self.stopping.is_set():
                self.answers.append(ask(client))
                if self.answers[-1].status != "answered":
                    time.sleep(PAUSE_S)

    def since(self, began_s: float) -> list[Answer]:
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


RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]


def ask(client: grpcclient.InferenceServerClient, *, deadline_s: float = DEADLINE_S) -> Answer:
    sent_s = time.monotonic()
    try:
        client.infer(CATEGORY, [one_image()], client_timeout=deadline_s)
        status = "answered"
    except InferenceServerException as error:
        status = f"{error.status()} {error.message()}"
    return Answer(sent_s, time.monotonic(), status)


@contextmanager
def clients_of(supervisor: Supervisor, *, count: int = 4) -> Iterator[Clients]:
    """Clients that ask a server within the block."""
    clients = Clients()
    url = supervisor.server.grpc_url
    threads = [threading.Thread(target=clients.keep_asking, args=(url,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.stopping.set()
        for thread in threads:
            thread.join()


def readiness(supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    """Status and body of the supervisor's own endpoint."""
    assert supervisor.health_url is not None
    try:
        with urllib.request.urlopen(supervisor.health_url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def events_of(log: Path) -> list[dict[str, Any]]:
    """What the supervisor wrote beside a log."""
    return [json.loads(line) for line in events_path(log).read_text().splitlines()]
