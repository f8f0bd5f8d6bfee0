"""Faults of a running server: what clients see of them, and for how long. Each test prints it (`pytest -s`)."""

from __future__ import annotations

import fcntl
import os
import queue
import random
import signal
import struct
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2

from deploy.supervision import hangs
from deploy.supervision.shared_memory import large_regions, mapped
from deploy.supervision.stalls import read_work
from deploy.supervision.stubs import Stub, StubWatch
from deploy.supervision.supervisor import Supervisor
from model_repository.running_servers import running
from tests.asking import DEADLINE_S, Clients, ask, one_image
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true, processes_of
from tests.deploy.supervision.conftest import clients_of, events_of, readiness

pytestmark = pytest.mark.triton

STUDENT = f"{CATEGORY}_student"
TINY_TEACHER = "test_resnet_64"
AT_WORK = 2 * 4  # that the teacher's two instances may have begun with, a batch each
SERVES_AGAIN_S = 5.0
CANCELLING_S = 5.0
BUSY = 4.0  # times as long, where the tests share the machine


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No inference of the supervisor's own is among those that a test counts."""
    monkeypatch.setattr(hangs, "QUIET_S", 60.0)


def stubs_of(supervisor: Supervisor, model: str) -> list[Stub]:
    watch = StubWatch(supervisor.server.pid)
    watch.look()
    return watch.of(model)


def becomes_ready(supervisor: Supervisor, within_s: float) -> float:
    """Seconds until all of it serves."""
    began_s = time.monotonic()
    assert comes_true(lambda: readiness(supervisor)[0] == 200, within_s=within_s), readiness(supervisor)
    return time.monotonic() - began_s


def serves(supervisor: Supervisor) -> None:
    with grpcclient.InferenceServerClient(supervisor.server.grpc_url) as client:
        assert [ask(client, CATEGORY).status for _ in range(5)] == ["answered"] * 5


def errors_until(clients: Clients, began_s: float) -> None:
    """The clients have had their last error, at the latest when the deadlines of what hung are over."""

    def well() -> bool:
        lately = [answer for answer in clients.since(began_s) if answer.ended_s > time.monotonic() - 1]
        return bool(lately) and {answer.status for answer in lately} == {"answered"}

    assert comes_true(well, within_s=DEADLINE_S + 5), clients.answers[-1]


def test_a_dead_stub_is_seen_and_its_model_reloaded(supervisor: Supervisor) -> None:
    stub = stubs_of(supervisor, STUDENT)[0]
    with clients_of(supervisor) as clients:
        began_s = time.monotonic()
        os.kill(stub.pid, signal.SIGKILL)
        assert comes_true(lambda: readiness(supervisor)[0] == 503, within_s=2)
        seen_s = time.monotonic() - began_s
        assert STUDENT in readiness(supervisor)[1]["faults"]
        becomes_ready(supervisor, 10)
        ready_s = time.monotonic() - began_s
        errors_until(clients, began_s)
    clients.say(f"stub killed: not ready after {seen_s:.1f} s, ready after {ready_s:.1f} s", began_s)
    assert clients.outage_s(began_s) < 10
    assert {answer.status.partition(" ")[0] for answer in clients.since(began_s)} <= {
        "answered",
        "StatusCode.INTERNAL",  # what was in that process
    }
    assert stub.pid not in [stub.pid for stub in stubs_of(supervisor, STUDENT)]
    events = [event["event"] for event in events_of(supervisor.server.log)]
    assert events[-2:] == ["model_broken", "model_reloaded"]


def test_a_stopped_stub_is_killed_and_its_model_reloaded(supervisor: Supervisor) -> None:
    stub = stubs_of(supervisor, STUDENT)[0]
    with clients_of(supervisor) as clients:
        began_s = time.monotonic()
        os.kill(stub.pid, signal.SIGSTOP)
        gone = lambda: (  # noqa: E731
            not psutil.pid_exists(stub.pid) or psutil.Process(stub.pid).status() == psutil.STATUS_ZOMBIE
        )
        assert comes_true(gone, within_s=10)
        seen_s = time.monotonic() - began_s
        becomes_ready(supervisor, 10)
        errors_until(clients, began_s)
    clients.say(f"stub stopped: killed after {seen_s:.1f} s", began_s)
    assert clients.outage_s(began_s) < 10


def test_shared_memory_of_a_huge_request_is_given_back(supervisor: Supervisor) -> None:
    """Triton's Python steps keep it: one request of 200 MB would stay in /dev/shm for good."""
    decoder = "image_decoder_64"

    def held() -> int:
        return sum(mapped(stub.pid, large_regions()) for stub in stubs_of(supervisor, decoder))

    request = service_pb2.ModelInferRequest(model_name=decoder)
    request.inputs.add(name="encoded_image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", 200_000_000) + bytes(200_000_000))
    with clients_of(supervisor) as clients:
        began_s = time.monotonic()
        with (
            grpcclient.InferenceServerClient(supervisor.server.grpc_url) as client,
            pytest.raises(grpc.RpcError, match="is not an image of a known format"),
        ):
            client._client_stub.ModelInfer(request)
        assert comes_true(
            lambda: events_of(supervisor.server.log)[-1]["event"] == "model_reloaded", within_s=20
        )
        assert comes_true(lambda: held() == 0, within_s=5)
        time.sleep(0.5)
    clients.say(f"200 MB of zeros: given back after {time.monotonic() - began_s:.1f} s", began_s)
    assert {answer.status for answer in clients.since(began_s)} == {"answered"}
    assert [event["event"] for event in events_of(supervisor.server.log)][-2:] == [
        "memory_held",
        "model_reloaded",
    ]


def test_a_killed_server_serves_again_on_the_same_ports(supervisor: Supervisor, published: Path) -> None:
    dead = supervisor.server
    first_start_s = dead.ready_s
    with clients_of(supervisor) as clients:
        began_s = time.monotonic()
        os.kill(dead.pid, signal.SIGKILL)
        assert comes_true(lambda: supervisor.server is not dead, within_s=2)
        assert running(published) == [dead.grpc_url]  # it is announced all the time
        becomes_ready(supervisor, SERVES_AGAIN_S * BUSY)
        ready_s = time.monotonic() - began_s
        errors_until(clients, began_s)
    clients.say(f"server killed: serves after {ready_s:.1f} s (first start {first_start_s:.1f} s)", began_s)
    assert ready_s < max(SERVES_AGAIN_S, 1.5 * first_start_s)
    assert clients.outage_s(began_s) < ready_s + 2
    assert {answer.status.partition(" ")[0] for answer in clients.since(began_s)} == {
        "answered",
        "StatusCode.UNAVAILABLE",
    }
    assert supervisor.server.grpc_url == dead.grpc_url
    assert not processes_of(dead.pid)
    assert not list(Path("/dev/shm").glob(f"{dead.turns.name.removesuffix('turns')}*"))
    # Steps that nobody needs follow.
    assert comes_true(
        lambda: all(model.state == "READY" for model in supervisor.server.models()), within_s=20
    )


def cancel_calls(url: str, stopping: threading.Event) -> None:
    """Send calls and cancel each 0 to 15 ms later."""
    with grpcclient.InferenceServerClient(url) as client:
        while not stopping.is_set():
            call = client.async_infer(CATEGORY, [one_image()], callback=lambda result, error: None)
            time.sleep(random.uniform(0, 0.015))
            call.cancel()


def test_clients_that_cancel_kill_it_and_it_serves_again(supervisor: Supervisor) -> None:
    """Upstream server #7840, mended in 2.54. Where it does not die of them, nothing is lost."""
    dead, began_s, stopping = supervisor.server, time.monotonic(), threading.Event()
    threads = [threading.Thread(target=cancel_calls, args=(dead.grpc_url, stopping)) for _ in range(4)]
    for thread in threads:
        thread.start()
    comes_true(lambda: dead.exit_code is not None, within_s=CANCELLING_S)
    died_s = time.monotonic()
    stopping.set()
    for thread in threads:
        thread.join()
    if dead.exit_code is not None:
        assert comes_true(lambda: supervisor.server is not dead, within_s=2)
    becomes_ready(supervisor, SERVES_AGAIN_S * BUSY)
    print(
        f"\ncancelled calls: exit code {dead.exit_code} after {died_s - began_s:.1f} s, ready after "
        f"{time.monotonic() - died_s:.1f} s more"
    )
    serves(supervisor)


def test_a_model_that_stalls_is_reloaded(supervisor: Supervisor) -> None:
    """Both processes hang without standing still: they wait for a lock that never comes."""
    with supervisor.server.turns.open("a") as turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        began_s = time.monotonic()
        with clients_of(supervisor, count=12) as clients:
            assert comes_true(lambda: readiness(supervisor)[0] == 503, within_s=15)
            seen_s = time.monotonic() - began_s
            fcntl.flock(turns, fcntl.LOCK_UN)
            becomes_ready(supervisor, 20)
            errors_until(clients, began_s)
    clients.say(f"stalled: seen after {seen_s:.1f} s", began_s)
    serves(supervisor)


def executions(supervisor: Supervisor, model: str) -> int:
    """Batches that a model has run."""
    return sum(
        entry["execution_count"] for entry in supervisor.control.statistics() if entry["name"] == model
    )


def test_work_of_clients_that_gave_up_is_dropped(supervisor: Supervisor, no_probes: None) -> None:
    """Triton tells a step when it begins with a request: the student gets nothing of what the teacher had waiting."""
    before = executions(supervisor, STUDENT)
    ended: queue.Queue[object] = queue.Queue()
    with (
        supervisor.server.turns.open("a") as turns,
        grpcclient.InferenceServerClient(supervisor.server.grpc_url) as client,
    ):
        fcntl.flock(turns, fcntl.LOCK_EX)
        for _ in range(30):
            client.async_infer(
                CATEGORY, [one_image()], callback=lambda result, error: ended.put(error), client_timeout=0.3
            )
        for _ in range(30):
            assert "Deadline" in str(ended.get(timeout=5))
        fcntl.flock(turns, fcntl.LOCK_UN)

    def waiting() -> int:
        work = read_work(supervisor.control, supervisor.server.metrics_url)
        return sum(model.waiting for model in work.values())

    assert comes_true(lambda: waiting() == 0, within_s=5)
    serves(supervisor)
    student = executions(supervisor, STUDENT) - before - 5  # those of `serves`
    print(f"\n30 requests whose deadline passed: the student ran {student} of them")
    assert student == 0


def test_what_waits_longer_than_it_says_is_refused_by_the_server(
    supervisor: Supervisor, no_probes: None
) -> None:
    """So a queue is not full of requests that nobody waits for. Its clock goes in half seconds."""
    before = executions(supervisor, f"teacher_{TINY_TEACHER}")
    ended: queue.Queue[str] = queue.Queue()
    began_s = time.monotonic()
    with (
        supervisor.server.turns.open("a") as turns,
        grpcclient.InferenceServerClient(supervisor.server.grpc_url) as client,
    ):
        fcntl.flock(turns, fcntl.LOCK_EX)
        for _ in range(30):
            client.async_infer(
                CATEGORY,
                [one_image()],
                callback=lambda result, error: ended.put(str(error)),
                client_timeout=DEADLINE_S,
                timeout=300_000,
            )
        refused = [ended.get(timeout=DEADLINE_S) for _ in range(30 - AT_WORK)]
        took_s = time.monotonic() - began_s
        fcntl.flock(turns, fcntl.LOCK_UN)
        others = [ended.get(timeout=DEADLINE_S) for _ in range(AT_WORK)]
    ran = executions(supervisor, f"teacher_{TINY_TEACHER}") - before
    print(
        f"\n30 requests that wait 0.3 s at most: {len(refused)} refused after {took_s:.1f} s; {ran} batches ran"
    )
    assert all("UNAVAILABLE" in error and "Request timeout expired" in error for error in refused)
    assert ran <= AT_WORK
    assert all(error == "None" or "UNAVAILABLE" in error for error in others)
    serves(supervisor)


def test_a_stub_that_dies_as_it_begins_is_seen(supervisor: Supervisor) -> None:
    """Nobody has seen it alive, and so nobody knows whose it was."""
    watch = StubWatch(supervisor.server.pid)
    os.kill(stubs_of(supervisor, STUDENT)[0].pid, signal.SIGKILL)
    assert comes_true(lambda: bool(watch.look().unknown), within_s=2)
    assert comes_true(lambda: readiness(supervisor)[0] == 503, within_s=2)
    becomes_ready(supervisor, 10)


def test_it_does_not_grow(supervisor: Supervisor) -> None:
    """20 s of load; `make bench-all WHAT=endurance` takes half an hour."""
    group = [psutil.Process(supervisor.server.pid), *psutil.Process(supervisor.server.pid).children()]
    prefix = supervisor.server.turns.name.removesuffix("turns")

    def use() -> tuple[int, int, int]:
        regions = list(Path("/dev/shm").glob(f"{prefix}*"))
        return (
            sum(process.memory_info().rss for process in group if process.is_running()),
            sum(process.num_fds() for process in [*group, psutil.Process()] if process.is_running()),
            sum(region.stat().st_size for region in regions),
        )

    with clients_of(supervisor) as clients:
        time.sleep(5)
        before = use()
        began_s = time.monotonic()
        time.sleep(20)
        after = use()
    first, last = (
        sum(began_s + start < answer.ended_s < began_s + start + 5 for answer in clients.answers)
        for start in (0, 15)
    )
    clients.say(
        f"20 s of load: memory {before[0] >> 20} to {after[0] >> 20} MiB, descriptors {before[1]} to {after[1]}, "
        f"shared memory {before[2] >> 20} to {after[2] >> 20} MiB, answers of 5 s {first} and {last}",
        began_s,
    )
    assert after[0] < before[0] + (16 << 20)
    assert after[1] <= before[1] + 4
    assert after[2] == before[2]
    assert {answer.status for answer in clients.since(began_s)} == {"answered"}
