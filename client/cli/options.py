"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
AT_LEAST_ONE = click.IntRange(1)
URL = click.option(
    "--url",
    default="localhost:8001",
    envvar="ASTMFR_URL",
    show_envvar=True,
    help="host:port of the gRPC endpoint.",
)
TIMEOUT = click.option("--timeout-s", default=10.0, help="Deadline of every call, seconds.")
