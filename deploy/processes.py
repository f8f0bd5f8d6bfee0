"""Child processes that do not outlive us."""

from __future__ import annotations

import shutil
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
