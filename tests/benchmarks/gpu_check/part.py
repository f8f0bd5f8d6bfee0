"""Runs one part, as a process of its own."""

from __future__ import annotations

import importlib
import signal
import sys

from tests.benchmarks.gpu_check.parts import PARTS
from tests.benchmarks.gpu_check.work import Results, parse_arguments


def main() -> None:
    """Measure; an error of any kind is left as `fault`, one sentence beside what was measured before it."""
    # As after Ctrl-C, so that servers that were started are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    name, asked, output = parse_arguments()
    part = next(part for part in PARTS if part.name == name)
    results = Results(output)
    try:
        module = importlib.import_module(f"tests.benchmarks.gpu_check.{part.module}")
        module.measure(asked, results, **part.options)
    except Exception as error:
        results.put(fault=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise


if __name__ == "__main__":
    main()
