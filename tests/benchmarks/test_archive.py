"""The benchmark of an archive: who runs on which cores, what processes have used of them, and its page."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from client.core.errors import BenchmarkError
from tests.benchmarks.archive.__main__ import bars_of
from tests.benchmarks.archive.commands import Archived
from tests.benchmarks.archive.cores import Situation, on_cores, processor_s, situations
from tests.benchmarks.archive.pages import page
from tests.benchmarks.archive.throughput import Asked, Throughput

TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be parted")
CHILD = "import os; print(*os.sched_getaffinity(0))"
BUSY = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass\n"


def child_cores() -> set[int]:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, encoding="utf-8", check=True)
    return set(map(int, done.stdout.split()))


@TWO_CORES
def test_what_is_started_on_some_cores_stays_there_and_all_threads_move() -> None:
    first, *rest = sorted(os.sched_getaffinity(0))
    before = {first, *rest}
    with ThreadPoolExecutor(1) as pool:
        pool.submit(threading.get_native_id).result()  # the thread is there before
        with on_cores({first}):
            assert child_cores() == {first}
            with on_cores(set(rest)):
                assert child_cores() == set(rest)
                assert pool.submit(os.sched_getaffinity, 0).result() == set(rest)
            assert child_cores() == {first}
        assert pool.submit(os.sched_getaffinity, 0).result() == before
    assert child_cores() == before


def test_a_server_has_half_of_the_cores_and_another_core_is_left() -> None:
    apart, shared, one_thread = situations({3, 5, 4, 9, 7})
    assert (apart.server, apart.clients) == ({3, 4}, {5, 7, 9})
    assert shared.server == shared.clients == {3, 4, 5, 7, 9}
    assert one_thread == replace(shared, name="one-thread", threads=1)
    with pytest.raises(BenchmarkError, match="expected 2 or more"):
        situations({0})


def test_processor_time_counts_what_a_process_has_started() -> None:
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY.format(0.3)!r}])\ninput()\n"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        try:
            seen = 0.0
            while process.poll() is None and seen < 0.3:
                now = processor_s(process.pid)
                assert now >= seen  # what has ended still counts
                seen = now
        finally:
            process.kill()
    assert seen >= 0.3
    assert processor_s(process.pid) == 0.0


def measured(name: str, *archived: float) -> Throughput:
    situation = Situation(name, {0}, {1} if name == "apart" else {0})
    runs = [Archived(100, seconds=12.0, rate=rate) for rate in archived]
    return Throughput(
        situation,
        8,
        Asked([100.0, 50.0, 200.0], server_ms=[9.0, 9.0, 9.0]),
        Asked([95.0, 94.0, 96.0], [3.0, 3.0, 3.0], [9.0, 9.0, 9.0]),
        Asked([*archived], [4.0, 5.0, 6.0], [9.0, 9.0, 9.0]),
        Asked([99.0, 49.0, 199.0], [2.0, 2.0, 2.0], [7.0, 7.0, 7.0]),
        runs,
    )


def test_the_bar_is_of_a_server_with_cores_of_its_own_turn_by_turn() -> None:
    memory = [Archived(count, rate=50, memory_mib=[1000.0 + count]) for count in (1000, 100_000)]
    all_three = [
        measured("apart", 95, 46, 190),
        measured("shared", 50, 25, 100),
        measured("one-thread", 70, 35, 140),
    ]
    apart, shared, one_thread, growth = bars_of(all_three, memory)
    assert apart.value == 0.95
    assert apart.cleared
    assert (shared.value, shared.limit) == (0.5, None)
    assert (one_thread.value, one_thread.limit) == (0.7, None)
    assert growth.value == 50.5
    assert not growth.cleared
    text = page(all_three, memory, [apart, shared, growth], size=128)
    lines = text.splitlines()
    assert "| perf_analyzer, 8 in flight | 100, 50, 200 | 100 | 1.00 |  | 9.0 |" in lines
    assert "| `archive`, 2 workers | 95, 46, 190 | 95 | 0.95 | 5.0 | 9.0 |" in lines
    assert "| the same with `--batch 4` | 99, 49, 199 | 99 | 0.99 | 2.0 | 7.0 |" in lines
    assert "| 100,000 | 101,000 | 101,000 | 50 |" in lines
    assert lines.index("### A server with cores of its own") < lines.index("### Everything on the same cores")
    assert "- FALLS SHORT: memory with 100,000 images / with 1,000 is 50.5, expected at most 1.10." in lines
