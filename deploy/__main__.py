"""Command line of the deployment stage: servers (`prepare`, `serve`, `run`), their models, and releases."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from deploy.bundles import COMMANDS as BUNDLES
from deploy.commands import run_beside, serve_until_stopped
from deploy.containers.command import command as print_command
from deploy.containers.compose import down, up
from deploy.doctor.command import doctor
from deploy.installation import prepare as prepare_installation
from deploy.lazy_loading import category_ensembles, unload_category
from deploy.model_control import DEFAULT_URL, ModelControl
from deploy.planning.command import plan
from deploy.preview.command import preview
from deploy.protection.command_options import ProtectionOptions, protection_options
from deploy.protection.protection import Protection
from deploy.protection.secrets import admin_headers
from deploy.releases import COMMANDS
from deploy.repository import ENCODED, require_published, settle
from deploy.server import GRACE_S, running_server
from deploy.serving_options import (
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PATH,
    PORT,
    category_option,
    parse_seconds,
    server_options,
    triton_env_option,
)
from deploy.supervision.supervised import supervised_server
from deploy.tracing.command_options import TracingOptions, tracing_options
from deploy.tracing.tracing import Tracing
from deploy.trust.commands import COMMANDS as TRUST
from deploy.trust.keys import require_signature_option, require_signatures
from model_repository.grpc_endpoint import KEY_FILE

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Serve the model repository: a tritonserver on PATH (NVIDIA's container), else the embedded one."""


@main.command()
@triton_env_option
def prepare(triton_env: Path) -> None:
    """Make the embedded server and perf_analyzer ready to run; nothing is done twice."""
    prepare_installation(triton_env)
    click.echo(
        f"Ready: the embedded tritonserver of {triton_env}, and {triton_env / 'bin' / 'perf-analyzer'}."
    )


@main.command()
@server_options(http_port=HTTP_PORT, grpc_port=GRPC_PORT, metrics_port=METRICS_PORT)
@click.option(
    "--health-port",
    type=PORT,
    help="TCP port for /v2/health/ready that is 503 while a step's process is dead, which Triton's own does not see, "
    "and for /metrics of the supervisor; 0 for a free one.  [default: none]",
)
@click.option(
    "--grace-s",
    default=GRACE_S,
    callback=parse_seconds,
    help="Seconds for requests in flight when it is stopped.",
)
@category_option
@require_signature_option
@protection_options
@tracing_options
def serve(
    require_signature: tuple[Path, ...], protecting: ProtectionOptions, traced: TracingOptions, **options: Any
) -> None:
    """Serve every model until Ctrl-C or SIGTERM.

    A server that dies is started again, on the same ports; a step whose process dies or hangs is reloaded. What is done
    is said here and beside the log, in NAME.events.jsonl.
    """
    protection = _protect(protecting, options["host"])
    _prepare_repository(options["repository"])
    require_signatures(options["repository"], require_signature)
    tracing = _trace(traced)
    serve_until_stopped(supervised_server(**options, protection=protection, tracing=tracing))


@main.command(context_settings={"allow_interspersed_args": False})
@server_options(http_port=0, grpc_port=0, metrics_port=0)
@protection_options
@tracing_options
@click.argument("command", nargs=-1, required=True)
def run(
    command: tuple[str, ...], protecting: ProtectionOptions, traced: TracingOptions, **options: Any
) -> None:
    """Serve every model while COMMAND runs, and end with its exit code.

    COMMAND finds the server in ASTMFR_URL (gRPC, host:port), ASTMFR_HTTP_URL and ASTMFR_METRICS_URL, and the admin key
    in ASTMFR_KEY_FILE. With TLS, name the authority for it in ASTMFR_TLS_CA.
    """
    protection = _protect(protecting, options["host"])
    if protecting.key_file is not None:
        os.environ[KEY_FILE] = str(protecting.key_file.absolute())
    _prepare_repository(options["repository"])
    server = running_server(**options, protection=protection, tracing=_trace(traced))
    sys.exit(run_beside(server, command))


def _protect(protecting: ProtectionOptions, host: str) -> Protection:
    """Check the options, and say what people should know about them."""
    protection, told = protecting.protection(host)
    for sentence in told:
        click.echo(f"Note: {sentence}.", err=True)
    return protection


def _trace(traced: TracingOptions) -> Tracing:
    """What is traced; people are told."""
    tracing = traced.tracing()
    for sentence in tracing.told():
        click.echo(f"Note: {sentence}.", err=True)
    return tracing


def _prepare_repository(repository: Path) -> None:
    """What a killed command left is put right, and something is published."""
    for line in settle(repository):
        click.echo(line, err=True)
    require_published(repository)


for added in (print_command, up, down, plan):
    main.add_command(added)

_http_url = click.option("--http-url", default=DEFAULT_URL, help="Where the server answers over HTTP.")
_key_file = click.option(
    "--key-file",
    type=PATH,
    envvar=KEY_FILE,
    show_envvar=True,
    help="File with the server's admin key.  [default: none]",
)


@main.command()
@click.argument("category")
@_http_url
@_key_file
def load(category: str, http_url: str, key_file: Path | None) -> None:
    """Load CATEGORY into a running server, both of its ensembles and their steps."""
    control = ModelControl(http_url, headers=admin_headers(key_file))
    for model in category_ensembles(control, category):
        control.load(model)
    click.echo(f"Loaded: {category} and {category}{ENCODED}.")


@main.command()
@click.argument("category")
@_http_url
@_key_file
def unload(category: str, http_url: str, key_file: Path | None) -> None:
    """Take CATEGORY out of a running server; steps that other categories use stay."""
    control = ModelControl(http_url, headers=admin_headers(key_file))
    click.echo(f"Unloaded: {', '.join(unload_category(control, category))}.")


for command in (doctor, preview, *COMMANDS, *TRUST, *BUNDLES):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m deploy")
