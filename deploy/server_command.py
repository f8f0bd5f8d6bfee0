"""The one place that decides how a tritonserver is started: `serve` starts what `command` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.installation import Installation
from deploy.ports import Ports
from deploy.protection.protection import Protection
from deploy.server_options import command_options, stub_environment
from deploy.tracing.tracing import OFF, Tracing


@dataclass(frozen=True)
class Machine:
    """What the machine that will run the server has; None is what this one shows."""

    cores: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class ServerCommand:
    """A command line, and the variables that its environment needs beside those that it inherits."""

    arguments: list[str]
    variables: dict[str, str]


THIS_MACHINE = Machine()


def server_command(
    installation: Installation,
    repository: Path,
    models: Sequence[str],
    *,
    host: str,
    ports: Ports,
    shm_prefix: str,
    threads: int,
    timeout_s: float,
    protection: Protection,
    tracing: Tracing = OFF,
    machine: Machine = THIS_MACHINE,
    served_from: Path | None = None,
) -> ServerCommand:
    """How a server is started for some models of a repository.

    Args:
        installation: the server's binary, with options that belong to where it is installed, and its newer options.
        repository: where the configurations are read.
        models: what it loads.
        host: IPv4 address to listen on.
        ports: to listen on.
        shm_prefix: begins the names of its regions in /dev/shm.
        threads, timeout_s: as of `deploy.server.running_server`.
        protection: who may connect and ask what.
        tracing: what is traced.
        machine: where it will run.
        served_from: where that machine has the repository; the same path unless stated.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    options = command_options(
        repository,
        models,
        host=host,
        http_host=protection.http_address or host,
        ports=ports,
        shm_prefix=shm_prefix,
        threads=threads,
        timeout_s=timeout_s,
        cores=machine.cores,
        gpus=machine.gpus,
        served_from=served_from,
    )
    newer = installation.switches.options(client_shm=protection.client_shm)
    return ServerCommand(
        [*installation.command, *protection.server_options(), *newer, *tracing.server_options(), *options],
        stub_environment(threads, shm_prefix=shm_prefix),
    )
