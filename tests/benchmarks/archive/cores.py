"""Which processor cores this process, and what it starts, may use; and how long they were used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from client.core.errors import BenchmarkError


@dataclass(frozen=True)
class Situation:
    """Where a server and those who ask it run.

    Attributes:
        name: by which the page knows it.
        server, clients: cores, by their numbers.
        threads: of each backbone; 0 for those that publishing chooses.
    """

    name: str
    server: Set[int]
    clients: Set[int]
    threads: int = 0


def situations(cores: Set[int]) -> tuple[Situation, ...]:
    """The server with half of the cores for itself; all of them shared; and the same with a thread a backbone.

    Raises:
        BenchmarkError: there is one core, which cannot be parted.
    """
    numbers = sorted(cores)
    half = len(numbers) // 2
    if not half:
        raise BenchmarkError(
            "One core may be used here, and a server with cores of its own needs one for those who ask; expected 2 or "
            "more."
        )
    every = frozenset(numbers)
    return (
        Situation("apart", frozenset(numbers[:half]), frozenset(numbers[half:])),
        Situation("shared", every, every),
        Situation("one-thread", every, every, threads=1),
    )


@contextmanager
def on_cores(cores: Set[int]) -> Iterator[None]:
    """Keep this process to some cores for the length of a `with` block, and for good what it starts meanwhile."""
    before = os.sched_getaffinity(0)
    _move(cores)
    try:
        yield
    finally:
        _move(before)


def _move(cores: Set[int]) -> None:
    """Move all threads: Linux knows each by itself, and a new one stays where the one is that starts it."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def processor_s(pid: int) -> float:
    """Seconds that a process and all that it has started have used cores for."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
