"""`python -m deploy command`: the command line and environment of a server, for what starts it without `serve`."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from deploy.errors import PortError
from deploy.installation import Installation
from deploy.ports import Ports, host_address
from deploy.protection.command_options import ProtectionOptions, protection_options
from deploy.protection.protection import Protection
from deploy.protection.secrets import NAME
from deploy.repository import first_models, require_plain_path, require_published
from deploy.server_command import Machine, ServerCommand, server_command
from deploy.server_versions import Switches
from deploy.serving_options import (
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PATH,
    category_option,
    host_option,
    loading_options,
    port_options,
    repository_option,
    together,
)
from deploy.supervision.shared_memory import region_bytes
from deploy.tracing.command_options import TracingOptions, tracing_options
from model_repository.image_decoder.picture_limits import MAX_MEGAPIXELS
from model_repository.triton_release import TRITON_RELEASE

KEY_VARIABLE = "ASTMFR_ADMIN_KEY"
REFERENCE = f"$({KEY_VARIABLE})"  # as Kubernetes writes it
RANDOM_KEY = "od -An -N24 -tx1 /dev/urandom | tr -d ' \\n'"
PREFIX = "astmfr_"
PROGRAM = "tritonserver"

_options = together(
    repository_option,
    click.option(
        "--mounted-at",
        type=PATH,
        help="Where the server finds the repository, e.g. in its container.  [default: where it is here]",
    ),
    host_option,
    *port_options(HTTP_PORT, GRPC_PORT, METRICS_PORT, any_free=False),
    *loading_options,
    category_option,
    click.option(
        "--cores",
        type=click.IntRange(1, 4096),
        help="CPU cores of the machine that runs it.  [default: this one's]",
    ),
    click.option(
        "--gpus", type=click.IntRange(0, 64), help="GPUs of the machine that runs it.  [default: this one's]"
    ),
    click.option(
        "--version",
        default=TRITON_RELEASE,
        help="Release of NVIDIA's container, or version of tritonserver; some options depend on it.",
    ),
)


@dataclass(frozen=True)
class Asked:
    """What the options say of a server, and of the machine that runs it."""

    repository: Path
    mounted_at: Path | None
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    threads: int
    max_categories: int
    category: tuple[str, ...]
    timeout_s: float
    cores: int | None
    gpus: int | None
    version: str


@dataclass(frozen=True)
class Told:
    """What is printed.

    Attributes:
        command: the program, its options, and the variables that it needs.
        key: whether the options hold a reference to the admin key.
        key_file: the file with that key, where one was named.
        shared_memory_bytes: what the Python steps take of /dev/shm with full batches.
        version: of the server that it is for.
    """

    command: ServerCommand
    key: bool
    key_file: Path | None
    shared_memory_bytes: int
    version: str

    def to_json(self) -> str:
        """One JSON object; the key stands in it as `$(ASTMFR_ADMIN_KEY)`, which Kubernetes fills in."""
        values = asdict(self.command) | {
            "shared_memory_bytes": self.shared_memory_bytes,
            "version": self.version,
            "key_variable": KEY_VARIABLE if self.key else None,
        }
        return json.dumps(values, indent=2)

    def to_shell(self) -> str:
        """Lines for a shell; the key is read from its file when they are run, or expected in the environment."""
        lines = [
            f"# For tritonserver {self.version}; give it {self.shared_memory_bytes >> 20} MiB of /dev/shm."
        ]
        if self.key and self.key_file:
            lines.append(f"{KEY_VARIABLE}=$(sed -n 's/^{NAME}=//p' {shlex.quote(str(self.key_file))})")
            lines.append(f': "${{{KEY_VARIABLE}:?holds no admin key}}"')
        elif self.key:  # as `serve` does: what is closed opens to nobody
            lines.append(f"# Unless you state {KEY_VARIABLE}, nobody has the key to what is closed.")
            lines.append(f": ${{{KEY_VARIABLE}:=$({RANDOM_KEY})}}")
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.command.variables.items()]
        words = ["exec env", *variables, *map(_quoted, self.command.arguments)]
        return "\n".join([*lines, " \\\n    ".join(words)])


@click.command()
@_options
@protection_options
@tracing_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program in place of shell lines.")
def command(protecting: ProtectionOptions, traced: TracingOptions, as_json: bool, **options: Any) -> None:
    """Print how `serve` would start its server, for one that is started without it; starts nothing.

    Nobody looks after such a server: `serve` starts one again that dies, and reloads a step that hangs. Keys and
    certificates are named and not read: they need not be on this machine.
    """
    told = tell(Asked(**options), protecting, traced)
    click.echo(told.to_json() if as_json else told.to_shell())


def tell(asked: Asked, protecting: ProtectionOptions, traced: TracingOptions) -> Told:
    """The command for a server that this machine need not be able to run.

    Raises:
        RepositoryError: there is nothing to serve, or a configuration cannot be read.
        PortError, ProtectionError, InstallationError: the host, what protects it or the version is not usable.
    """
    require_published(asked.repository)
    served_from = asked.mounted_at or asked.repository
    require_plain_path(served_from)
    models = first_models(asked.repository, asked.max_categories, asked.category)
    host = host_address(asked.host)
    protection = _protection(protecting, host)
    ports = Ports(http=asked.http_port, grpc=asked.grpc_port, metrics=asked.metrics_port)
    if len({ports.http, ports.grpc, ports.metrics}) < 3:
        raise PortError(
            f"HTTP, gRPC and metrics are to listen on the ports {ports.http}, {ports.grpc} and {ports.metrics}; each "
            "needs one of its own."
        )
    built = server_command(
        Installation((PROGRAM,), {}, asked.version, Switches.of_version(asked.version)),
        asked.repository,
        models,
        host=host,
        ports=ports,
        shm_prefix=PREFIX,
        threads=asked.threads,
        timeout_s=asked.timeout_s,
        protection=protection,
        tracing=traced.tracing(),
        machine=Machine(asked.cores, asked.gpus),
        served_from=served_from,
    )
    stated = {name: value for name, value in os.environ.items() if name == MAX_MEGAPIXELS}
    built = replace(built, variables=built.variables | stated)
    key = any(REFERENCE in argument for argument in built.arguments)
    _, full = region_bytes(asked.repository, models)
    return Told(built, key, protecting.key_file, full, asked.version)


def _protection(protecting: ProtectionOptions, host: str) -> Protection:
    """What `serve` would protect it with, the key as a reference to it."""
    protection = Protection.choose(
        host,
        certificates=protecting.named_certificates(),
        insecure=protecting.insecure,
        client_shm=protecting.client_shm,
        connection_age_s=protecting.connection_age_s,
    )
    is_open = protection.controls_open and protecting.key_file is None
    return replace(protection, controls_open=is_open, admin_key=REFERENCE)


def _quoted(argument: str) -> str:
    """An argument for a shell, in which the reference to the key is filled in."""
    return f'"${KEY_VARIABLE}"'.join(shlex.quote(part) if part else "" for part in argument.split(REFERENCE))
