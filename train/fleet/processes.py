"""Commands in processes of their own, which end with the process that started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

POLL_S = 0.2
STOP_S = 60.0  # a training ends its step and saves its state
# The system kills the command when the worker dies that started it: with its node, or for lack of memory. Else it would
# go on beside the task that takes its place. Ray's workers block Ctrl-C, by which the command is stopped.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def run_command(
    arguments: Sequence[str],
    *,
    output: IO[bytes],
    errors: IO[bytes],
    environment: Mapping[str, str],
    watch: Callable[[], None],
) -> int:
    """Run this Python with some arguments, and return its exit status.

    An exception meanwhile, such as the KeyboardInterrupt of a task that is cancelled, ends the command first: it gets
    what Ctrl-C sends, and `STOP_S` seconds.

    Args:
        arguments: `-m train fit ...`.
        output: takes what it prints.
        errors: takes what it says of errors and progress.
        environment: its environment.
        watch: called now and then while it runs.
    """
    command = [sys.executable, "-S", "-E", "-c", LAUNCH, str(os.getpid()), *arguments]
    process = subprocess.Popen(
        command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, env=dict(environment)
    )
    try:
        while process.poll() is None:
            watch()
            time.sleep(POLL_S)  # a task that is cancelled hears of it between two calls
    except BaseException:
        _stop(process)
        raise
    return process.returncode


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # as Ctrl-C does: it tidies up, and a lock goes with it
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
