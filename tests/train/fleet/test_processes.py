"""A command ends with what started it: told to stop when a task is cancelled, killed when a worker is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pytest

from train.fleet.processes import run_command

ENVIRONMENT = {**os.environ, "GREETING": "hello"}
GREET = "import os; print(os.environ['GREETING'], flush=True); raise SystemExit(3)"
# Writes down when it was told to stop, and ends then; that reaches it although who started it blocks and ignores it.
OBEY = """
import pathlib, sys, time
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text("tidied up")
"""
# Starts a command, as a worker of Ray does, and prints its process.
WORKER = """
import os, sys, tempfile
from train.fleet.processes import run_command
with tempfile.TemporaryFile() as file:
    run_command(["-c", "import os; print(os.getpid(), flush=True); import time; time.sleep(60)"],
                output=sys.stdout, errors=file, environment=os.environ, watch=lambda: None)
"""


def nothing() -> None:
    """What watches a command that is left alone."""


def run(*arguments: object, output: IO[bytes], watch: Callable[[], None] = nothing) -> int:
    with tempfile.TemporaryFile() as errors:
        return run_command(
            list(map(str, arguments)), output=output, errors=errors, environment=ENVIRONMENT, watch=watch
        )


def test_status_and_output_are_the_commands() -> None:
    with tempfile.TemporaryFile() as output:
        assert run("-c", GREET, output=output) == 3
        output.seek(0)
        assert output.read() == b"hello\n"


def test_a_task_that_is_cancelled_lets_its_command_end_by_itself(tmp_path: Path) -> None:
    ready = tmp_path / "out"

    def cancel() -> None:
        if ready.read_text():
            raise KeyboardInterrupt

    before = (
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]),
        signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        with ready.open("wb") as output, pytest.raises(KeyboardInterrupt):
            run("-c", OBEY, tmp_path / "stopped", output=output, watch=cancel)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert (tmp_path / "stopped").read_text() == "tidied up"


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux does for a process whose parent dies")
def test_a_worker_that_is_killed_leaves_no_command_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        command = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    _, alive = psutil.wait_procs([command], timeout=10)
    assert alive == []
    assert time.time() - command.create_time() < 60
