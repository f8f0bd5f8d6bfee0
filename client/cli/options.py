"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
AT_LEAST_ONE = click.IntRange(1)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the server is, and how long it may take."""
    return apply_options(
        command,
        click.option(
            "--url",
            default="localhost:8001",
            envvar="ASTMFR_URL",
            show_envvar=True,
            help="host:port of the gRPC endpoint.",
        ),
        click.option("--timeout-s", default=10.0, help="Deadline of every call, seconds."),
    )


def apply_options(command: Callable[..., None], *options: Callable[..., Any]) -> Callable[..., None]:
    """Options in the order of their listing."""
    for option in reversed(options):
        command = option(command)
    return command
