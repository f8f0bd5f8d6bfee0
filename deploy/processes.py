"""Child processes that do not outlive us."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """The command, to which the kernel sends SIGTERM should the thread that starts it end first.

    This covers what no `finally` does: being killed outright. It needs setpriv (util-linux, which Debian,
    Ubuntu and Red Hat always have); without it the command is given back as it is.
    """
    # A preexec_fn could do the same, but forks: gRPC's threads, if there are any, take that badly.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)
