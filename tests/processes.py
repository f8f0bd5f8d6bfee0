"""Programs that tests and benchmarks start."""

from __future__ import annotations

import subprocess


def end(process: subprocess.Popen[bytes], *, within_s: float) -> None:
    """Ask a program to end, and kill it where it does not in time."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
