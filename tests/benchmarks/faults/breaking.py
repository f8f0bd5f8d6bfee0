"""Break a supervised server in one way after the other, while clients ask."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.core.errors import ServerError
from client.judging.connection import JudgeClient
from deploy.supervision.stubs import Stub, StubWatch
from deploy.supervision.supervisor import Supervisor
from tests.asking import Clients, ask, asking, one_image

PATIENCE_S = 30.0
READY_WITHIN_S = 120.0
CROWD = 200
CROWD_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Row:
    """One line of the page.

    Attributes:
        fault: what was done, and how often.
        found: what happened, in words with numbers.
        seconds: the longest time until all of it served again; None where nothing had to.
        most: seconds that it may take.
        lost: requests of clients that may retry which got no verdict.
        asked: their requests.
    """

    fault: str
    found: str
    seconds: float | None = None
    most: float | None = None
    lost: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Target:
    """What is broken.

    Attributes:
        supervisor: the running server.
        category, size: what its clients ask about; pixels of a side.
    """

    supervisor: Supervisor
    category: str
    size: int

    @property
    def url(self) -> str:
        """Where it answers over gRPC."""
        return self.supervisor.server.grpc_url

    def stubs(self, model: str) -> list[Stub]:
        """The processes of a step."""
        watch = StubWatch(self.supervisor.server.pid)
        watch.look()
        return watch.of(model)

    def patient(self) -> Clients:
        """Clients that send a request again for a while."""
        return Clients(self.category, self.size, patience_s=PATIENCE_S)

    def wait_until_ready(self) -> float:
        """Seconds until all of it serves."""
        began_s = time.monotonic()
        while not self.supervisor.health.ready()[0]:
            if time.monotonic() > began_s + READY_WITHIN_S:
                raise TimeoutError(f"it does not serve again: {self.supervisor.health.ready()[1]}")
            time.sleep(0.02)
        return time.monotonic() - began_s


def break_again(
    target: Target, fault: str, most: float, break_it: Callable[[], None], *, times: int, seen: str = ""
) -> Row:
    """Break it some times under four patient clients; the time runs from the fault to readiness."""
    seconds: list[float] = []
    unready: list[float] = []
    with asking(target.url, target.patient()) as clients:
        time.sleep(1)
        for _ in range(times):
            began_s = time.monotonic()
            break_it()
            while target.supervisor.health.ready()[0]:
                if time.monotonic() > began_s + READY_WITHIN_S:
                    raise TimeoutError(f"nobody has seen: {fault}")
                time.sleep(0.01)
            unready.append(time.monotonic() - began_s)
            target.wait_until_ready()
            seconds.append(time.monotonic() - began_s)
            time.sleep(2)
    lost = [answer for answer in clients.answers if answer.status != "answered"]
    found = (
        f"seen after {median(unready):.1f} s, longest {max(unready):.1f}{seen}; serves after {median(seconds):.1f} s, "
        f"longest {max(seconds):.1f}"
    )
    return Row(f"{fault}, {times} times", found, max(seconds), most, len(lost), len(clients.answers))


def kill_server(target: Target, times: int) -> Row:
    """`kill -9` of tritonserver."""
    return break_again(
        target,
        "tritonserver is killed",
        5.0,
        lambda: os.kill(target.supervisor.server.pid, signal.SIGKILL),
        times=times,
    )


def signal_stub(target: Target, number: signal.Signals, times: int) -> Row:
    """A signal to one process of the student."""
    verb = "is killed" if number == signal.SIGKILL else "is stopped (SIGSTOP)"
    model = f"{target.category}_student"
    return break_again(
        target,
        f"a step's process {verb}",
        10.0,
        lambda: os.kill(target.stubs(model)[0].pid, number),
        times=times,
    )


def cancel_calls(target: Target, minutes: float) -> Row:
    """Four clients that cancel each call 0 to 15 ms after sending it, beside one of the project's own."""
    stopping = threading.Event()

    def cancel() -> None:
        generator = random.Random()
        with grpcclient.InferenceServerClient(target.url) as client:
            while not stopping.is_set():
                call = client.async_infer(
                    target.category, [one_image(target.size)], callback=lambda result, error: None
                )
                time.sleep(generator.uniform(0, 0.015))
                call.cancel()

    deaths, outages = target.supervisor.state.deaths, []
    with judging(target) as other:
        threads = [threading.Thread(target=cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        end_s = time.monotonic() + 60 * minutes
        while time.monotonic() < end_s:
            if target.supervisor.server.exit_code is not None:
                outages.append(target_is_back(target))
            time.sleep(0.01)
        stopping.set()
        for thread in threads:
            thread.join()
        target.wait_until_ready()
        time.sleep(1)
    deaths = target.supervisor.state.deaths - deaths
    back = f"; serves after {median(outages):.1f} s, longest {max(outages):.1f}" if outages else ""
    return Row(
        f"4 clients cancel their calls for {minutes:g} minutes",
        f"{deaths} deaths{back}; a verdict took {other.longest_s:.1f} s at most{other.told()}",
        max(outages, default=None),
        5.0,
        sum(other.errors.values()),
        other.asked,
    )


@dataclass
class Judged:
    """What the project's own client saw.

    Attributes:
        asked: images.
        errors: how often each of them was raised.
        longest_s: of an image, from asking to the verdict or the error.
    """

    asked: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def told(self) -> str:
        """The errors, if any, for the table."""
        return "".join(f"; {count} times {error}" for error, count in self.errors.items())


@contextmanager
def judging(target: Target) -> Iterator[Judged]:
    """`JudgeClient`, with its one budget of time for all tries of an image, asks all the time within the block."""
    seen, stopping = Judged(), threading.Event()
    image = np.full((target.size, target.size, 3), 128, np.uint8)

    def ask_on() -> None:
        with JudgeClient(target.url, category=target.category, timeout_s=PATIENCE_S) as client:
            while not stopping.is_set():
                began_s = time.monotonic()
                try:
                    client.judge(image)
                except ServerError as error:
                    seen.errors[str(error)] += 1
                seen.asked += 1
                seen.longest_s = max(seen.longest_s, time.monotonic() - began_s)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        thread.join()


def target_is_back(target: Target) -> float:
    """Seconds from a server's death to readiness."""
    dead, began_s = target.supervisor.server, time.monotonic()
    while target.supervisor.server is dead or not target.supervisor.health.ready()[0]:
        time.sleep(0.01)
    return time.monotonic() - began_s


def crowd(target: Target) -> Row:
    """200 requests at once."""
    ended: queue.Queue[tuple[float, str]] = queue.Queue()

    def end(result: object, error: InferenceServerException | None) -> None:
        ended.put((time.monotonic(), "answered" if error is None else str(error.status())))

    with grpcclient.InferenceServerClient(target.url) as client:
        before_s = usual_s(client, target)
        began_s = time.monotonic()
        for _ in range(CROWD):
            client.async_infer(
                target.category, [one_image(target.size)], callback=end, client_timeout=CROWD_DEADLINE_S
            )
        ends = [ended.get(timeout=CROWD_DEADLINE_S + 5) for _ in range(CROWD)]
        time.sleep(5)
        after_s = usual_s(client, target)
    seen = Counter(status for _, status in ends)
    other = CROWD - seen["answered"] - seen["StatusCode.UNAVAILABLE"]
    return Row(
        f"{CROWD} requests at once, 64 may wait",
        f"{seen['answered']} verdicts, {seen['StatusCode.UNAVAILABLE']} UNAVAILABLE, {other} other ends within "
        f"{max(when for when, _ in ends) - began_s:.1f} s; a call took {1e3 * before_s:.0f} ms before and "
        f"{1e3 * after_s:.0f} ms 5 s later",
        lost=other,
        asked=CROWD,
    )


def usual_s(client: grpcclient.InferenceServerClient, target: Target) -> float:
    """Seconds of a call, the median of 20."""
    answers = [ask(client, target.category, size=target.size) for _ in range(20)]
    return median(answer.ended_s - answer.sent_s for answer in answers)
