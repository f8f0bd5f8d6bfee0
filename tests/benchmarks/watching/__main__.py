"""Does `watch` lose a picture, or judge one twice, over kills of either side? `make bench-all WHAT=watching`.

A tiny category is trained, 64 px, and served by the embedded server under its supervisor. Pictures are written into a
folder, half of them in place and half renamed there. Meanwhile `watch` and the server are killed in turns (SIGKILL) and
started again. Then one process of `watch` goes on through an outage of the server, and its memory is looked at.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console

from client.benchmark.bars import Bar
from client.benchmark.machine import this_machine
from deploy.ports import Ports, claim_ports
from deploy.server import TritonServer, running_server
from deploy.supervision.supervised import supervised_server
from tests.benchmarks.many_releases import make_build
from tests.benchmarks.meanwhile import looking
from tests.benchmarks.releases import START_TIMEOUT_S, publish
from tests.benchmarks.results import FOLDER, run, write_results
from tests.benchmarks.watching.place import Phase, Place, writing
from tests.products import ROOT, copy_backends

PAGE = Path("docs/measurements/watch.md")
MOST_GROWTH = 1.1  # of the memory, from a fifth of the pictures to the end
HEAD = """# A watched folder

{date}, the embedded server, networks of a few MB, 64 px, {machine}. `make bench-all WHAT=watching`.
`watch` and the server are killed in turns (SIGKILL) while pictures arrive, half written in place and half renamed
there. The journal, the JSON lines and the folders that pictures were moved to are compared with what was written.

| what | pictures | kills | lost | twice | pictures a minute |
|---|---|---|---|---|---|
"""


def kill_in_turns(repository: Path, folder: Path, *, pictures: int, kills: int) -> Phase:
    """Kill `watch` and the server in turns."""
    phase, place = Phase("`watch` and the server are killed in turns", pictures, kills), Place(folder)
    with supervised_server(
        repository=repository, log=folder / "log", triton_env=ROOT / ".triton", timeout_s=START_TIMEOUT_S
    ) as supervisor:
        url, began_s = supervisor.server.grpc_url, time.monotonic()
        watch = place.start(url)
        try:
            with writing(place.drop, pictures):
                for kill in range(kills):
                    place.wait_for((kill + 1) * pictures // (kills + 1))
                    if kill % 2:
                        os.kill(supervisor.server.pid, signal.SIGKILL)
                        continue
                    watch.kill()
                    watch.wait()
                    watch = place.start(url)
            place.wait_for(pictures)
            phase.seconds = time.monotonic() - began_s
            time.sleep(2)
        finally:
            watch.terminate()
            watch.wait(60)
    place.compare(phase)
    return phase


def outage(repository: Path, folder: Path, *, pictures: int, seconds: float) -> Phase:
    """Stop the server for a while, and look at the memory of `watch` all the time."""
    phase, place = Phase(f"the server is away for {seconds:g} s", pictures), Place(folder)
    grpc_port = claim_ports("127.0.0.1", Ports()).grpc

    def serve() -> AbstractContextManager[TritonServer]:
        return running_server(
            repository=repository,
            log=folder / "log",
            grpc_port=grpc_port,
            triton_env=ROOT / ".triton",
            timeout_s=START_TIMEOUT_S,
        )

    began_s = time.monotonic()
    watch = place.start(f"127.0.0.1:{grpc_port}")
    try:
        with writing(place.drop, pictures), looking_at_memory(watch.pid, phase):
            with serve():
                place.wait_for(pictures // 3)
            time.sleep(seconds)
            with serve():
                place.wait_for(pictures)
                phase.seconds = time.monotonic() - began_s
                time.sleep(2)
    finally:
        watch.terminate()
        watch.wait(60)
    place.compare(phase)
    return phase


@contextmanager
def looking_at_memory(pid: int, phase: Phase) -> Iterator[None]:
    """Note the memory of a process once a second."""
    process = psutil.Process(pid)

    def look() -> None:
        phase.memory_mib.append(process.memory_info().rss / 2**20)

    with looking(look, every_s=1):
        yield


def main() -> None:
    """Measure both parts, print a line each, and write the page."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as work:
        repository = copy_backends(Path(work) / "models")
        publish(make_build(Path(work)), repository)
        kills, away = Path(work) / "kills", Path(work) / "outage"
        phases = [
            kill_in_turns(repository, kills, pictures=asked.pictures, kills=asked.kills),
            outage(repository, away, pictures=asked.steady, seconds=asked.outage_s),
        ]
    growth = phases[1].growth
    bars = [
        *(Bar(f"{phase.what}: lost", phase.lost, 0, True) for phase in phases),
        *(Bar(f"{phase.what}: twice", phase.twice, 0, True) for phase in phases),
        Bar("memory at the end / after a fifth", growth, MOST_GROWTH, True),
    ]
    for bar in bars:
        console.print(str(bar))
    write_page(phases)
    write_results(asked.json, {"phases": [asdict(phase) for phase in phases]}, bars)


def write_page(phases: list[Phase]) -> None:
    """The table for people."""
    lines = [
        f"| {phase.what} | {phase.pictures:,} | {phase.kills} | {phase.lost} | {phase.twice} | "
        f"{60 * phase.pictures / phase.seconds:,.0f} |"
        for phase in phases
    ]
    memory = phases[1].memory_mib
    text = (
        f"\nMemory of `watch` through the outage: {max(memory[len(memory) // 5 :][:5]):.0f} MiB after a fifth of the "
        f"time, {max(memory[-5:]):.0f} MiB at the end.\n"
        "Rates are the server's, and count the time it was away; the load of the machine was "
        f"{os.getloadavg()[0]:.0f}.\n"
    )
    head = HEAD.format(date=datetime.now(UTC).date(), machine=this_machine())
    PAGE.write_text(head + "\n".join(lines) + "\n" + text, encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """How much is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=int, default=10_000, help="that arrive while both sides are killed"
    )
    parser.add_argument("--kills", type=int, default=20, help="of both sides together")
    parser.add_argument("--steady", type=int, default=5_000, help="pictures of the part with the outage")
    parser.add_argument("--outage-s", type=float, default=60, help="for which the server is away")
    parser.add_argument("--json", type=Path, default=FOLDER / "watching.json", help="gets the results")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
