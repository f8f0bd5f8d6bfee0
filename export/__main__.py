"""Command line of the export stage: `python -m export onnx | verify | bench | engine | plan | publish`."""

from __future__ import annotations

from typing import Any

import click

from export.cli.builds import bench, onnx, verify
from export.cli.engines import engine
from export.cli.releases import plan, publish

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Turn a checkpoint into verified ONNX graphs, and those into a Triton model repository."""


for command in (onnx, verify, bench, engine, plan, publish):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m export")
