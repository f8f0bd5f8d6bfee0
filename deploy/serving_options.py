"""Options of `serve`, `run`, `command` and `doctor`: what is served, where, and with how many threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002  # of `serve`, and Triton's own
MAX_THREADS = 1024
DAY_S = 86400

triton_env_option = click.option(
    "--triton-env", default=".triton", type=PATH, help="Environment of the embedded server."
)


def parse_seconds(context: click.Context, option: click.Parameter, seconds: float) -> float:
    """A number of seconds to wait for a server, a day at most."""
    if not 1 <= seconds <= DAY_S:  # NaN is neither
        raise click.BadParameter(
            f"{seconds:g} is no time to wait for a server; expected 1 to {DAY_S} seconds."
        )
    return seconds


repository_option = click.option(
    "--repository", default="model_repository", type=PATH, help="Folder of model folders."
)
host_option = click.option("--host", default="127.0.0.1", help="IPv4 address or name to listen on.")
category_option = click.option(
    "--category",
    multiple=True,
    help="Serve this category alone; give it again for each other one.  [default: all that are published]",
)
loading_options = (
    click.option(
        "--threads",
        default=0,
        type=click.IntRange(0, MAX_THREADS),
        help="Threads a backbone computes with, one a core at most; on platform onnxruntime those of the pool "
        "that all share. 0: as published.",
    ),
    click.option(
        "--max-categories",
        default=0,
        type=click.IntRange(0),
        help="Categories in memory at a time, 0: all. Others are loaded when a client loads them, and the least "
        "recently used is unloaded.",
    ),
    click.option(
        "--timeout-s",
        default=120.0,
        callback=parse_seconds,
        help="Seconds in which every model must be ready.",
    ),
)


def server_options(*, http_port: int, grpc_port: int, metrics_port: int) -> Callable[..., Any]:
    """The options of a server; they are the arguments of `running_server`."""
    return together(place_options(http_port, grpc_port, metrics_port), *loading_options)


def place_options(http: int, grpc: int, metrics: int) -> Callable[..., Any]:
    """What is served, from where to where."""
    return together(
        repository_option,
        host_option,
        *port_options(http, grpc, metrics, any_free=True),
        click.option(
            "--log", default="logs/tritonserver.log", type=PATH, help="File that gets the server's output."
        ),
        triton_env_option,
    )


def port_options(http: int, grpc: int, metrics: int, *, any_free: bool) -> list[Callable[..., Any]]:
    """The three ports of a server; with `any_free` 0 asks for a free one."""
    ports = (
        ("--http-port", http, "HTTP"),
        ("--grpc-port", grpc, "gRPC"),
        ("--metrics-port", metrics, "metrics"),
    )
    kind, more = (PORT, ", 0 for a free one") if any_free else (click.IntRange(1, 65535), "")
    return [
        click.option(option, default=port, type=kind, help=f"TCP port for {protocol}{more}.")
        for option, port, protocol in ports
    ]


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one, in this order in the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add
