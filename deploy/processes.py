"""Child processes: started so that they do not outlive us, killed, and how they ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """The command, wrapped so that the kernel sends it SIGTERM when the thread that started it ends first.

    This holds even when we are killed outright, which no `finally` survives. It needs setpriv (util-linux, which
    Debian, Ubuntu and Red Hat always have); without it the command is returned unchanged.
    """
    # A preexec_fn could do the same, but forks: gRPC's threads, if there are any, take that badly.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def start_in_own_session(
    command: Sequence[str], environment: Mapping[str, str], *, output: int
) -> subprocess.Popen[bytes]:
    """Start a command that ends with the thread that started it; what it says goes to the descriptor `output`."""
    return subprocess.Popen(
        ending_with_parent(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Ctrl-C in the terminal is for us alone: we stop the server, and it stops its stubs.
        start_new_session=True,
    )


def kill(pid: int) -> None:
    """Kill a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def ending(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
