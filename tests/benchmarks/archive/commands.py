"""The command `archive` in a process of its own, looked at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from tests.benchmarks.archive.cores import processor_s
from tests.benchmarks.categories import pss_mib
from tests.benchmarks.meanwhile import looking
from tests.products import ROOT

WORKERS = 2
TIMEOUT_S = 60
LOOK_S, MEMORY_S = 0.02, 2.0


@dataclass(frozen=True)
class Arrival:
    """A shard that was done.

    Attributes:
        at_s: when, of `time.monotonic`.
        client_s, server_s: of a core, that the command and the server had used until then, with all that they started.
    """

    at_s: float
    client_s: float
    server_s: float


@dataclass
class Archived:
    """One run of `archive`.

    Attributes:
        images: that it judged.
        seconds: of the whole command.
        rate: images a second, from when each worker has given back a shard to the last one: without Ray's start.
        client_ms, server_ms: of a core, an image of these.
        memory_mib: of the command and all that it has started, every MEMORY_S.
    """

    images: int
    seconds: float = 0.0
    rate: float = 0.0
    client_ms: float = 0.0
    server_ms: float = 0.0
    memory_mib: list[float] = field(default_factory=list)

    @property
    def peak_mib(self) -> float:
        """The most memory at any time."""
        return max(self.memory_mib)


def archive(
    source: Path,
    results: Path,
    *,
    category: str,
    url: str,
    shard: int,
    server: int,
    batch: int = 1,
    memory: bool = False,
) -> Archived:
    """Run the command on a folder of images.

    Args:
        source, results, category, url, shard, batch: see the command.
        server: process id of the server.
        memory: look at the memory too, which takes processor time.
    """
    count = sum(1 for _ in source.iterdir())
    archived, arrivals = Archived(count), list[Arrival]()
    parts = results.with_name(results.name + ".parts")
    command = [
        sys.executable, "-m", "client", "archive", source, "--to", results, "--category", category, "--url", url,
        "--workers", WORKERS, "--shard", shard, "--batch", batch, "--timeout-s", TIMEOUT_S,
    ]  # fmt: skip
    began_s = time.monotonic()
    with (
        subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL) as process,
        _looking(process.pid, server, parts, arrivals, archived.memory_mib if memory else None),
    ):
        exit_code = process.wait()
    archived.seconds = time.monotonic() - began_s
    if exit_code not in (0, 1) or pq.read_metadata(results).num_rows != count:
        raise RuntimeError(f"archive ended with {exit_code}, or without a row for each image")
    if len(arrivals) > WORKERS:
        rest, first, last = count - WORKERS * shard, arrivals[WORKERS - 1], arrivals[-1]
        archived.rate = rest / (last.at_s - first.at_s)
        archived.client_ms = 1000 * (last.client_s - first.client_s) / rest
        archived.server_ms = 1000 * (last.server_s - first.server_s) / rest
    results.unlink()
    return archived


@contextmanager
def _looking(
    pid: int, server: int, parts: Path, arrivals: list[Arrival], memory_mib: list[float] | None
) -> Iterator[None]:
    """Note when parts come, and the memory."""
    next_s = 0.0

    def look() -> None:
        nonlocal next_s
        with suppress(FileNotFoundError):
            there = sum(not entry.name.startswith(".") for entry in os.scandir(parts))
            if there > len(arrivals):
                now = Arrival(time.monotonic(), processor_s(pid), processor_s(server))
                arrivals.extend([now] * (there - len(arrivals)))
        if memory_mib is not None and time.monotonic() > next_s:
            memory_mib.append(memory_of(pid))
            next_s = time.monotonic() + MEMORY_S

    with looking(look, every_s=LOOK_S):
        yield


def memory_of(pid: int) -> float:
    """PSS of a process and all that it has started, MiB."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError, StopIteration):
                total += pss_mib(each.pid)
    return total


def links(files: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder of so many images, which are few files under many names."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(files[number % len(files)], folder / f"{number:06}.png")
    return folder
