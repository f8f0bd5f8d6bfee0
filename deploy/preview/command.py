"""`python -m deploy preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.commands import interrupt_on_signals, say
from deploy.releases import repository_option
from deploy.serving_options import PATH, PORT, parse_seconds, triton_env_option


@click.command()
@click.argument("category")
@click.argument("number", type=click.IntRange(1))
@repository_option
@click.option(
    "--port", default=0, type=PORT, help="TCP port for gRPC on this machine alone, 0 for a free one."
)
@click.option("--log", default="logs/preview.log", type=PATH, help="File that gets the server's output.")
@triton_env_option
@click.option(
    "--timeout-s",
    default=120.0,
    callback=parse_seconds,
    help="Seconds in which every model must be ready.",
)
@click.option(
    "--while-stdin",
    is_flag=True,
    help="End when standard input does, too: it is a pipe from the program that started this.",
)
def preview(while_stdin: bool, log: Path, **asked: Any) -> None:
    """Serve release NUMBER of CATEGORY, which is not live, beside the running server until Ctrl-C.

    Neither that nor the repository is changed: a folder beside the repository holds the release alone, and is removed
    at the end. The first line on standard output is host:port of the preview's gRPC endpoint, once it answers.
    """
    from deploy.preview.serving import Preview, previewing, wait_for_end

    interrupt_on_signals()
    wanted = Preview(log=log, **asked)
    named = f"release {wanted.number} of {wanted.category}"
    with previewing(wanted) as server:
        click.echo(server.grpc_url)
        say(
            f"Preview of {named}, which is not live: gRPC {server.grpc_url}; log {server.log}. Ctrl-C ends it."
        )
        wait_for_end(server, while_stdin=while_stdin)
        say("Stopping tritonserver ...")
    say("The preview has ended; nothing of it is left.")
