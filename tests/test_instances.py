"""Threads and instances that were published are what the embedded server runs with."""

from __future__ import annotations

import fcntl
import time
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
PAUSE_S = 0.05  # an instance is handed back a moment after its answer left, later on a busy machine


def stubs_of(server: TritonServer, model: str) -> list[Path]:
    """The processes that run a model, in /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            group = int((process / "stat").read_text().rpartition(")")[2].split()[2])
        except OSError:
            continue
        if group == server.pid and "triton_python_backend_stub" in command and f"/{model}/" in command:
            found.append(process)
    return found


def threads_of(server: TritonServer, model: str) -> list[int]:
    """Threads of each process that runs a model."""
    return [len(list((process / "task").iterdir())) for process in stubs_of(server, model)]


def wake_ups(process: Path) -> int:
    """How often a process's main thread went to sleep so far, to be woken by a request."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(status["voluntary_ctxt_switches"])


def test_the_server_runs_what_was_published_unless_told_otherwise(tiny_build: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository, platform=Platform(threads=1, instances=3))
    processes: dict[int, list[list[int]]] = {}
    for told in (0, 2):
        log = tmp_path / f"log_{told}"
        with running_server(
            repository=repository, log=log, triton_env=ROOT / ".triton", threads=told
        ) as server:
            processes[told] = [threads_of(server, model) for model in (TEACHER, STUDENT, "distance_fusion")]
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
        stubs = {model: stubs_of(server, model) for model in (TEACHER, STUDENT, "distance_fusion")}
        before = {stub: wake_ups(stub) for both in stubs.values() for stub in both}
        for _ in range(REQUESTS):
            judge.predict(Image.new("RGB", (64, 64)))
            time.sleep(PAUSE_S)
        for model, both in stubs.items():
            woken = sorted(wake_ups(stub) - before[stub] for stub in both)
            assert len(woken) == 2
            assert woken[1] >= REQUESTS, model
            assert woken[0] <= REQUESTS / 10, model


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
        assert judge.predict(image).release_id == judge.release_id
        fcntl.flock(turns, fcntl.LOCK_EX)
        answers = ThreadPoolExecutor(1).submit(judge.predict, image)
        assert not wait([answers], timeout=0.5).done
        fcntl.flock(turns, fcntl.LOCK_UN)
        assert answers.result(TIMEOUT_S).release_id == judge.release_id
    assert not server.turns.exists()
