"""Faults of a served category, and what `deploy serve` does about them: `make bench-all WHAT=faults`."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from client.benchmark.bars import Bar
from client.benchmark.machine import this_machine
from deploy.supervision.supervised import supervised_server
from export.manifest import read_manifest
from model_repository.image_size import square_side
from tests.asking import Clients, asking
from tests.benchmarks.faults.breaking import (
    Row,
    Target,
    cancel_calls,
    crowd,
    kill_server,
    signal_stub,
)
from tests.benchmarks.releases import START_TIMEOUT_S, publish
from tests.benchmarks.results import FOLDER, run, write_results
from tests.products import ROOT, copy_backends

PAGE = Path("docs/measurements/faults.md")
HEAD = """# Faults of a running server

{date}, `{preset}`, {size} px, the embedded server under `deploy serve`, {machine}. `make bench-all WHAT=faults`.
Four clients ask all the time and send a request again, for at most 30 s, that nobody judged. Beside clients that cancel
it is the project's own, with 30 s for all tries of an image. The goal is in seconds to readiness.

| fault | what happened | goal | lost requests |
|---|---|---|---|
"""


def main() -> None:
    """Break a server in each way, print a line each, and write the page."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        repository = copy_backends(Path(folder) / "models")
        publish(asked.build, repository)
        with supervised_server(
            repository=repository,
            log=Path(folder) / "log",
            triton_env=ROOT / ".triton",
            timeout_s=START_TIMEOUT_S,
        ) as supervisor:
            target = Target(supervisor, manifest.category, square_side(manifest.config.image_size))
            measurements: list[Callable[[], Row]] = [
                lambda: kill_server(target, asked.times),
                lambda: signal_stub(target, signal.SIGKILL, asked.times),
                lambda: signal_stub(target, signal.SIGSTOP, asked.times),
                lambda: crowd(target),
                lambda: cancel_calls(target, asked.minutes),
            ]
            for measure in measurements:
                rows.append(measure())
                console.print(f"{rows[-1].fault}: {rows[-1].found}; lost {rows[-1].lost} of {rows[-1].asked}")
            with asking(target.url, Clients(target.category, target.size)) as clients:
                time.sleep(1)
                began_s = time.monotonic()
                supervisor.stop()
                took_s = time.monotonic() - began_s
        rows.append(stopped(clients, began_s, took_s, supervisor.server.exit_code))
        console.print(f"{rows[-1].fault}: {rows[-1].found}")
    write_page(rows, preset=manifest.config.preset, size=square_side(manifest.config.image_size))
    bars = [
        *(Bar(f"{row.fault}, s", row.seconds, row.most, True) for row in rows if row.seconds and row.most),
        *(Bar(f"{row.fault}, lost requests", row.lost, 0, True) for row in rows),
    ]
    for bar in bars:
        console.print(str(bar))
    write_results(asked.json, {"rows": [asdict(row) for row in rows]}, bars)


def stopped(clients: Clients, began_s: float, took_s: float, exit_code: int | None) -> Row:
    """What those saw whose requests were in flight when the server was told to stop."""
    in_flight = [answer for answer in clients.answers if answer.sent_s < began_s < answer.ended_s]
    lost = sum(answer.status != "answered" for answer in in_flight)
    found = f"{len(in_flight)} requests in flight, {lost} without a verdict; exit code {exit_code} after {took_s:.1f} s"
    return Row("it is stopped under load", found, lost=lost, asked=len(in_flight))


def write_page(rows: list[Row], *, preset: str, size: int) -> None:
    """The table for people."""
    head = HEAD.format(date=datetime.now(UTC).date(), preset=preset, size=size, machine=this_machine())
    lines = [
        f"| {row.fault} | {row.found} | {'' if row.most is None else f'{row.most:g}'} | {row.lost} of {row.asked:,} |"
        for row in rows
    ]
    PAGE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """What is served, and how often it is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/pill"), help="what `export onnx` made")
    parser.add_argument("--times", type=int, default=5, help="of each fault that is one signal")
    parser.add_argument("--minutes", type=float, default=5, help="for which clients cancel their calls")
    parser.add_argument("--json", type=Path, default=FOLDER / "faults.json", help="gets the results")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
