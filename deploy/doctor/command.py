"""`python -m deploy doctor`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from deploy.doctor.check import Check
from deploy.doctor.examination import Plan, examine
from deploy.doctor.report import conclusion, serving_is_possible, to_json, to_table
from deploy.ports import Ports
from deploy.serving_options import GRPC_PORT, HTTP_PORT, METRICS_PORT, place_options


@click.command()
@place_options(HTTP_PORT, GRPC_PORT, METRICS_PORT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program in place of the table.")
def doctor(
    *,
    repository: Path,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    log: Path,
    triton_env: Path,
    as_json: bool,
) -> None:
    """Say what this machine has and lacks for serving, and what to do about it.

    Give it the repository, ports, log and environment of `serve`. It ends with 0 where serving is possible, and with 1
    where something is missing.
    """
    ports = Ports(http=http_port, grpc=grpc_port, metrics=metrics_port)
    checks = examine(Plan(repository, host, ports, log, triton_env))
    try:
        _print(checks, as_json=as_json)
    except OSError as error:  # the disk that is full may be the one that this goes to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.ClickException(f"standard output cannot be written ({error.strerror}).") from None
    if not serving_is_possible(checks):
        sys.exit(1)


def _print(checks: Sequence[Check], *, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    if as_json:
        click.echo(to_json(checks))
    else:
        console = Console(highlight=False)
        console.print(to_table(checks))
        console.print(conclusion(checks), markup=False)
    sys.stdout.flush()
