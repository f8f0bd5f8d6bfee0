"""Command line of the client: `python -m client predict | explain | watch | archive | page | report | bench`."""

from __future__ import annotations

from typing import Any

import click

from client.cli.archive import archive
from client.cli.bench import bench
from client.cli.explain import explain
from client.cli.group import Commands
from client.cli.page import page
from client.cli.predict import predict
from client.cli.report import report
from client.cli.watch import watch
from client.console import show_any_text

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(
    cls=Commands, context_settings=CONTEXT, commands=[predict, explain, watch, archive, page, report, bench]
)
def main() -> None:
    """Ask a Triton server for verdicts, and measure how fast they come."""
    show_any_text()


if __name__ == "__main__":
    main(prog_name="python -m client")
