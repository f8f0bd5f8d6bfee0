"""Child processes that do not outlive us."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """The command, wrapped so that the kernel sends it SIGTERM when the thread that started it ends first.

    This holds even when we are killed outright, which no `finally` survives. It needs setpriv (util-linux, which
    Debian, Ubuntu and Red Hat always have); without it the command is returned unchanged.
    """
    # A preexec_fn could do the same, but forks: gRPC's threads, if there are any, take that badly.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)
