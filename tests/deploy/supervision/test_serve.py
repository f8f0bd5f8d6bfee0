"""`deploy serve` as a process: more clients than its queues hold, a full disk, and SIGTERM while clients ask."""

from __future__ import annotations

import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.asking import Clients, ask, asking, one_image
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.deploy.supervision.conftest import events_of
from tests.products import ROOT, copy_backends
from tests.tiny_products import publish_tiny

pytestmark = pytest.mark.triton

QUEUE = 16
CROWD = 200
CROWD_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Serving:
    """A running `deploy serve`."""

    process: subprocess.Popen[str]
    url: str
    log: Path


@pytest.fixture(scope="module")
def serving(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One whose steps let 16 requests wait."""
    work = tmp_path_factory.mktemp("serve")
    repository = copy_backends(work / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    for config in repository.glob("*/config.pbtxt"):
        config.write_text(re.sub(r"max_queue_size: \d+", f"max_queue_size: {QUEUE}", config.read_text()))
    command = [sys.executable, "-m", "deploy", "serve", "--repository", repository, "--log", work / "log"]
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    with subprocess.Popen(
        [*command, *ports], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if ready := re.search(r"was ready after .*gRPC (\S+),", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield Serving(process, ready[1], work / "log")
                break
        else:
            pytest.fail(said)
        process.kill()


def test_a_crowd_ends_in_verdicts_or_refusals(serving: Serving) -> None:
    """Each request ends once, in a verdict or UNAVAILABLE; a full queue of a step may hang none."""
    ended: queue.Queue[tuple[float, str]] = queue.Queue()

    def end(result: object, error: InferenceServerException | None) -> None:
        ended.put((time.monotonic(), "answered" if error is None else str(error.status())))

    with grpcclient.InferenceServerClient(serving.url) as client:
        before_s = median(timed(client) for _ in range(20))
        began_s = time.monotonic()
        for _ in range(CROWD):
            client.async_infer(CATEGORY, [one_image()], callback=end, client_timeout=CROWD_DEADLINE_S)
        ends = [ended.get(timeout=CROWD_DEADLINE_S + 5) for _ in range(CROWD)]
        last_s = max(when for when, _ in ends) - began_s
        time.sleep(max(0.0, 5 - last_s))
        after_s = median(timed(client) for _ in range(20))
    seen = Counter(status for _, status in ends)
    print(
        f"\n{CROWD} at once on queues of {QUEUE}: {dict(seen)} within {last_s:.1f} s; a call took "
        f"{1e3 * before_s:.0f} ms before and {1e3 * after_s:.0f} ms 5 s later"
    )
    assert set(seen) <= {"answered", "StatusCode.UNAVAILABLE"}
    assert seen["answered"] >= QUEUE
    assert ended.empty()
    assert after_s < 3 * before_s + 0.05


def timed(client: grpcclient.InferenceServerClient) -> float:
    answer = ask(client, CATEGORY)
    assert answer.status == "answered"
    return answer.ended_s - answer.sent_s


def test_a_log_that_cannot_be_written_stops_nothing(serving: Serving) -> None:
    """The limit of a file's size stands for a full disk: the same call fails."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    size = serving.log.stat().st_size
    resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with grpcclient.InferenceServerClient(serving.url) as client:
        reload_student(client)  # about which the server writes
        assert comes_true(lambda: ask(client, CATEGORY).status == "answered", within_s=10)
        time.sleep(1.5)  # a look or two
        resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, unlimited)
        reload_student(client)
        assert comes_true(lambda: "lines are missing here: File too large" in serving.log.read_text())
        assert comes_true(lambda: ask(client, CATEGORY).status == "answered", within_s=10)
    # The disk of the events was full too: what was said then is on the terminal.
    assert comes_true(lambda: events_of(serving.log)[-1]["event"] == "log_written")


def reload_student(client: grpcclient.InferenceServerClient) -> None:
    client.unload_model(f"{CATEGORY}_student")
    client.load_model(f"{CATEGORY}_student")


def test_sigterm_answers_what_was_accepted(serving: Serving) -> None:
    with asking(serving.url, Clients(CATEGORY), count=8) as clients:
        assert comes_true(lambda: len(clients.answers) > 100, within_s=20)
        began_s = time.monotonic()
        serving.process.send_signal(signal.SIGTERM)
        exit_code = serving.process.wait(timeout=30)
        took_s = time.monotonic() - began_s
    clients.say(f"SIGTERM: exit code {exit_code} after {took_s:.1f} s", began_s)
    assert exit_code == 0
    in_flight = [answer for answer in clients.answers if answer.sent_s < began_s < answer.ended_s]
    assert [answer.status for answer in in_flight] == ["answered"] * len(in_flight)
    refused = Counter(
        answer.status.partition(" ")[0]
        for answer in clients.since(began_s)
        if answer.status != "answered" and "no available versions" not in answer.status
    )
    # CANCELLED: a call that came in the moment in which the port was closed.
    assert set(refused) <= {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"}
