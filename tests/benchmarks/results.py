"""What the benchmarks have in common: options, turns, and a JSON file beside the table."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from client.benchmark.bars import Bar
from client.benchmark.machine import this_machine
from client.core.errors import ClientError
from client.files import StorageError

FOLDER = Path("runs/benchmarks")


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark that serves a build."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=Path("build/pill"), help="what `export onnx` made")
    parser.add_argument("--images", type=Path, required=True, help="folder of images to send")
    return parser


def time_in_turns(
    contenders: dict[str, Callable[[], object]], *, turns: int, calls: int
) -> dict[str, list[float]]:
    """Milliseconds of every call; each turn runs all contenders, `calls` times each, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            run()
            for _ in range(calls):
                started = perf_counter()
                run()
                taken[name].append(1000 * (perf_counter() - started))
    return taken


def write_results(path: Path, results: dict[str, Any], bars: list[Bar]) -> None:
    """Results and bars as JSON, with the machine and how busy it was."""
    values = {
        "machine": str(this_machine()),
        "load_average_1_min": os.getloadavg()[0],
        **results,
        "bars": [{**asdict(bar), "cleared": bar.cleared} for bar in bars],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; one of the project's own errors is printed as one sentence, and the exit code is 1."""
    # SIGTERM ends it as Ctrl-C does, so that the servers that it started are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main()
    except (click.ClickException, ClientError, StorageError) as error:
        sys.exit(f"Error: {error.message}")
