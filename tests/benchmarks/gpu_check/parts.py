"""The parts of the check in their order, each a process of its own with a limit of its own.

The most wanted come first: what is over the eight minutes is left out, and said so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of its results.
        module: of this package; its `measure` takes what is asked for, the results, and `options`.
        limit_s: seconds after which it is stopped.
        options: further arguments of `measure`.
    """

    name: str
    module: str
    limit_s: float
    options: Mapping[str, Any]


PARTS = (
    Part("machine", "machine", 90, {}),
    Part("pair", "pair", 75, {}),
    Part("fit-paper", "fits", 170, {"preset": "paper"}),
    Part("loops-paper", "loops", 90, {"preset": "paper"}),
    Part("fusion", "fusion", 75, {}),
    Part("fit-edge", "fits", 60, {"preset": "edge"}),
    Part("gpu-tests", "gpu_tests", 75, {}),
    Part("pair-compiled", "pair", 90, {"compiled": True}),
    Part("loops-edge", "loops", 75, {"preset": "edge"}),
    Part("runtimes", "runtimes", 60, {}),
)


def run_part(part: Part, *, device: str, tiny: bool, folder: Path, seconds: float) -> dict[str, Any]:
    """Run a part and give back what it put, with `seconds`, and with `fault` where it did not come to its end.

    Args:
        part: what to run.
        device, tiny: see `work.Asked`.
        folder: takes the results, the log and what the parts leave for one another.
        seconds: the limit, where it is less than the part's own.
    """
    output, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    output.unlink(missing_ok=True)
    limit_s = min(part.limit_s, seconds)
    command = [sys.executable, "-m", "tests.benchmarks.gpu_check.part", part.name, "--device", device]
    command += [*(["--tiny"] if tiny else []), "--work", str(folder), "--output", str(output)]
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            stop(process)
    results = read(output)
    if code is None:
        results.setdefault("fault", f"stopped after its {limit_s:.0f} s")
    elif code != 0:
        results.setdefault("fault", last_line(log) or f"ended with exit code {code}")
    return results | {"seconds": round(time.perf_counter() - started, 1)}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part with everything that it started: first asked, so that a server is stopped, then killed."""
    for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def read(path: Path) -> dict[str, Any]:
    """A part's results; nothing where it left none."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values


def last_line(log: Path) -> str:
    """The last line of a part's output: of an exception, what it says."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1][:300] if lines else ""
