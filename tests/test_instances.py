"""Threads and instances that were published are what the embedded server runs with."""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from PIL import Image

from client import JudgeClient
from deploy.server import TritonServer, running_server
from export.serving.backbones import Platform
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from train.support.cores import usable_cores

pytestmark = pytest.mark.triton

TEACHER = "teacher_test_resnet_64"
STUDENT = f"{CATEGORY}_student"
REQUESTS = 50
LOOKS = 3  # in a row at which all threads of a server sleep, before it counts as idle
LOOK_S = 0.005


def status_of(process: Path) -> list[str]:
    """State, parent, group and more of a process or thread in /proc; nothing of one that has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def processes_of(server: TritonServer) -> list[Path]:
    """A server and its stubs, in /proc."""
    return [
        process for process in Path("/proc").glob("[0-9]*") if status_of(process)[2:3] == [str(server.pid)]
    ]


def stubs_of(server: TritonServer, model: str) -> list[Path]:
    """The processes that run a model, in /proc."""
    commands = {process: (process / "cmdline").read_bytes().decode() for process in processes_of(server)}
    return [process for process, command in commands.items() if f"/{model}/" in command]


def threads_of(server: TritonServer, model: str) -> list[int]:
    """Threads of each process that runs a model."""
    return [len(list((process / "task").iterdir())) for process in stubs_of(server, model)]


def wait_until_idle(processes: list[Path]) -> None:
    """An instance is handed back after its answer has left: until nothing more happens, however slow the machine is."""
    looks = 0
    while looks < LOOKS:
        threads = (thread for process in processes for thread in (process / "task").iterdir())
        looks = looks + 1 if all(status_of(thread)[:1] in ([], ["S"]) for thread in threads) else 0
        time.sleep(LOOK_S)


def wake_ups(process: Path) -> int:
    """How often a process's main thread went to sleep so far, to be woken by a request."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(status["voluntary_ctxt_switches"])


def test_the_server_runs_what_was_published_unless_told_otherwise(tiny_build: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository, platform=Platform(threads=1, instances=3))
    processes: dict[int, list[list[int]]] = {}
    for option in (0, 2):
        log = tmp_path / f"log_{option}"
        with running_server(
            repository=repository, log=log, triton_env=ROOT / ".triton", threads=option
        ) as server:
            processes[option] = [threads_of(server, model) for model in (TEACHER, STUDENT, "distance_fusion")]
    assert [len(stubs) for stubs in processes[0]] == [3, 3, 2]
    # A session's first thread is its caller's: each further one is a thread more.
    more = min(2, usable_cores()) - 1
    teacher, student, fusion = processes[0]
    assert processes[2] == [[count + more for count in stubs] for stubs in (teacher, student)] + [fusion]


def test_a_spare_instance_stays_idle_while_requests_come_one_by_one(tiny_build: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    with (
        running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server,
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
    ):
        processes = processes_of(server)
        stubs = {model: stubs_of(server, model) for model in (TEACHER, STUDENT, "distance_fusion")}
        woken: Counter[Path] = Counter()
        started_s = time.monotonic()
        for _ in range(REQUESTS):
            wait_until_idle(processes)
            before = {stub: wake_ups(stub) for both in stubs.values() for stub in both}
            judge.judge(Image.new("RGB", (64, 64)))
            wait_until_idle(processes)
            woken.update(stub for stub, count in before.items() if wake_ups(stub) > count)
        clock_ticks = time.monotonic() - started_s
        for model, both in stubs.items():
            assert len(both) == 2
            # What one instance is woken for, the other one is not; but a clock wakes both, once a second.
            assert max(woken[stub] for stub in both) >= 0.9 * REQUESTS, model
            assert min(woken[stub] for stub in both) <= REQUESTS / 10 + clock_ticks, model


@pytest.mark.skipif(usable_cores() < 2, reason="one core has nothing to share out")
def test_backbones_with_every_core_compute_in_turns(tiny_build: Path, tmp_path: Path) -> None:
    """Whoever holds the lock computes: while this test does, no answer comes."""
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    with (
        running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server,
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
        server.turns.open("a") as turns,
    ):
        image = Image.new("RGB", (64, 64))
        assert judge.judge(image).release_id == judge.release_id
        fcntl.flock(turns, fcntl.LOCK_EX)
        answers = ThreadPoolExecutor(1).submit(judge.judge, image)
        assert not wait([answers], timeout=0.5).done
        fcntl.flock(turns, fcntl.LOCK_UN)
        assert answers.result(TIMEOUT_S).release_id == judge.release_id
    assert not server.turns.exists()
