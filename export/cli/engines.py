"""The command that builds TensorRT's engines, or checks that they could be built: `engine`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console

from export.cli.options import (
    PRECISIONS,
    build_dir_option,
    category_option,
    server_image_option,
)
from train.support.command_options import options_as

# Options of `engine` that say where it runs and where builds lie: inside the container they are others.
OUTSIDE_OPTIONS = ("in_container", "server_image", "build_dir")


@dataclass(frozen=True)
class EngineChoices:
    """How the engines are to be built; becomes `export.records.EngineOptions`, which costs a second to import."""

    min_batch: int
    opt_batch: int | None
    max_batch: int
    workspace_mib: int | None
    optimization_level: int
    version_compatible: bool
    hardware_compatibility: str


choice_options = options_as(
    "choices",
    EngineChoices,
    click.option("--min-batch", default=1, type=click.IntRange(1), help="Smallest batch, images."),
    click.option(
        "--opt-batch",
        type=click.IntRange(1),
        help="Batch to tune for, images.  [default: 4, at most --max-batch]",
    ),
    click.option("--max-batch", default=8, type=click.IntRange(1), help="Largest batch, images."),
    click.option(
        "--workspace-mib",
        type=click.IntRange(1),
        help="Scratch memory a layer may take, MiB.  [default: all of the GPU's]",
    ),
    click.option(
        "--optimization-level",
        default=3,
        type=click.IntRange(0, 5),
        help="0 builds fastest, 5 searches longest.",
    ),
    click.option(
        "--version-compatible/--one-version",
        default=False,
        help="Also load in later TensorRTs of the same major version; slower, and Triton must be told "
        "(--backend-config=tensorrt,version-compatible=true).",
    ),
    click.option(
        "--hardware-compatibility",
        default="none",
        type=click.Choice(["none", "same_compute_capability", "ampere_plus"]),
        help="Other GPUs to run on.",
    ),
)


@click.command()
@category_option
@build_dir_option
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the graphs.  [default: fp32; with --check every one that was exported]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Only see whether TensorRT takes the graphs; needs no GPU, gives no model.plan.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="With --check: keep the engines beside the graphs, as <graph>.rtx for RTX cards.",
)
@choice_options
@click.option("--force", is_flag=True, help="Build even when up to date.")
@click.option(
    "--in-container", is_flag=True, help="Run in the Triton image that will load the engines, with docker."
)
@server_image_option
@click.pass_context
def engine(
    context: click.Context,
    /,
    category: str,
    build_dir: Path,
    precision: str | None,
    check: bool,
    keep: bool,
    choices: EngineChoices,
    force: bool,
    in_container: bool,
    server_image: str,
) -> None:
    """Build teacher.plan and student.plan for Triton's TensorRT backend, on the kind of GPU that will run them.

    An engine runs only on the TensorRT that built it: --in-container builds with the server's own. --check asks
    TensorRT for RTX instead, ahead of time and without a GPU, in which types it takes the graphs.
    """
    if in_container and check:
        raise click.UsageError("--check needs no GPU and no container; leave --in-container out.")
    if keep and not check:
        raise click.UsageError("--keep goes with --check; engines for Triton are always kept.")
    if check:
        _check_engines(category, build_dir, precision, keep=keep)
        return
    from export.engines.build import build_category_engines, engine_options, engine_table
    from export.manifest import find_build, read_manifest

    options = engine_options(**asdict(choices))
    precision = precision or "fp32"
    if in_container:
        from export.engines.container import run_in_container

        read_manifest(find_build(build_dir, category, precision))  # before minutes of docker
        sys.exit(run_in_container(_given_options(context), build_dir=build_dir, server_image=server_image))
    result = build_category_engines(category, precision, build_dir=build_dir, options=options, force=force)
    Console().print(engine_table(result.records, precision=precision))
    click.echo("Built." if result.built else "Up to date.")


def _given_options(context: click.Context) -> list[str]:
    """The options that were given on the command line and hold inside the container too, as they were written."""
    arguments: list[str] = []
    for option in context.command.params:
        name = str(option.name)
        if name in OUTSIDE_OPTIONS or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            arguments.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            arguments += [option.opts[0], str(value)]
    return arguments


def _check_engines(category: str, build_dir: Path, precision: str | None, *, keep: bool) -> None:
    from export.engines.check import check_engines, check_table, keep_engine
    from export.manifest import existing_builds, find_build

    if precision is None:
        builds = existing_builds(build_dir, category)
    else:
        builds = {precision: find_build(build_dir, category, precision)}
    checked = check_engines(builds)
    Console().print(check_table(checked))
    if keep:
        for engine in checked:
            click.echo(f"Kept: {keep_engine(engine)}")
