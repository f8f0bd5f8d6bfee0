"""Start a server on a release that is not live, beside the one that serves."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.commands import say
from deploy.doctor.software import find_server
from deploy.errors import InstallationError, ServerError
from deploy.preview.scratch import scratch_folder
from deploy.server import TritonServer, running_server

NICENESS = 10  # of the preview's processes: on a busy machine the server that serves comes first
POLL_S = 0.2


@dataclass(frozen=True)
class Preview:
    """What is to be served, and where.

    Attributes:
        category, number: the release.
        repository: which holds it; it is only read.
        port: TCP port for gRPC on loopback, 0 for a free one.
        log: file that gets the server's output.
        triton_env: environment of the embedded server.
        timeout_s: seconds in which every model must be ready.
    """

    category: str
    number: int
    repository: Path
    port: int
    log: Path
    triton_env: Path
    timeout_s: float


@contextmanager
def previewing(asked: Preview) -> Iterator[TritonServer]:
    """A server with one release that is not live, for the length of a `with` block; then all of it is removed.

    Raises:
        PublishError, DataError: there is no such release, it is live, or a file of it is not what it was.
        InstallationError: the server here cannot run the release's platform.
        UserError: see `deploy.server.running_server`.
    """
    from export.releases.verbs.preview import find_candidate

    candidate = find_candidate(asked.repository, asked.category, asked.number)
    _require_backends(asked, candidate.backends)
    with scratch_folder(asked.repository) as scratch:
        copied = candidate.lay_out(scratch)
        if copied:
            say(
                f"{copied / 2**20:.0f} MiB of it are copied into {scratch.parent}, which cannot link to them."
            )
        with suppress(OSError):
            os.nice(NICENESS)
        say(f"Starting tritonserver with release {asked.number} of {asked.category} ...")
        with running_server(
            repository=scratch,
            log=asked.log,
            grpc_port=asked.port,
            triton_env=asked.triton_env,
            timeout_s=asked.timeout_s,
        ) as server:
            yield server


def wait_for_end(server: TritonServer, *, while_stdin: bool) -> None:
    """Wait for Ctrl-C, SIGTERM or, where that is asked for, the end of standard input.

    Raises:
        ServerError: the server ended by itself.
    """
    with suppress(KeyboardInterrupt):
        while server.exit_code is None:
            if not while_stdin:
                time.sleep(POLL_S)
            elif select.select([sys.stdin], [], [], POLL_S)[0] and not os.read(sys.stdin.fileno(), 4096):
                return
        raise ServerError(
            f"tritonserver ended by itself with exit code {server.exit_code}; see {server.log}."
        )


def _require_backends(asked: Preview, needed: frozenset[str]) -> None:
    server = find_server(asked.triton_env)
    if not server.backends.is_dir():
        return  # the server will say what it lacks
    present = {folder.name for folder in server.backends.iterdir() if folder.is_dir()}
    if lacking := sorted(needed - present):
        raise InstallationError(
            f"release {asked.number} of {asked.category} runs on Triton's backend {' and '.join(lacking)}, and the "
            f"server here ({server.installation.origin}) has {', '.join(sorted(present))} alone; preview it in "
            "NVIDIA's Triton container."
        )
