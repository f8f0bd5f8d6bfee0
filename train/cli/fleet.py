"""The command `fleet`: many categories, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from train.cli.options import (
    DATA_DIR,
    FIT_FIELDS,
    PATH,
    ConfigOptions,
    RunOptions,
    config_options,
    run_options,
    show_banner,
)
from train.errors import DataError
from train.support.command_options import FiniteRange, options_as


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and what a task gets of it; `gpus_per_task` is None where it was not asked for."""

    address: str | None
    cpus_per_task: int
    gpus_per_task: float | None
    memory_per_task: float
    retries: int


class AskedInVainError(DataError):
    """What a fleet was asked for is not there."""

    exit_code = 2  # as of a wrong option


def parse_gpus(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A part of one GPU, or whole ones: Ray gives no others."""
    if value is not None and value > 1 and not value.is_integer():
        raise click.BadParameter(f"expected a part of one GPU or a whole number, found {value:g}.")
    return value


cluster_options = options_as(
    "cluster",
    ClusterOptions,
    click.option(
        "--address",
        help="A Ray cluster: host:port, or auto for the one that RAY_ADDRESS names or that runs on this machine.  "
        "[default: this machine alone]",
    ),
    click.option(
        "--cpus-per-task",
        default=1,
        type=click.IntRange(1, 1024),
        help="Cores of a task, and threads that it computes with.",
    ),
    click.option(
        "--gpus-per-task",
        type=FiniteRange(0, 16),
        callback=parse_gpus,
        help="GPUs of a task; 0.5 lets two share one.  [default: 1 where a node has one, else 0]",
    ),
    click.option(
        "--memory-per-task",
        default=2.0,
        type=FiniteRange(0, 10_000, min_open=True),
        help="Memory that is kept free for a task, GB.",
    ),
    click.option(
        "--retries",
        default=3,
        type=click.IntRange(0, 100),
        help="Times that a task begins again when its node or process dies.",
    ),
)


@click.command()
@click.option(
    "--categories", default="all", help="Names with commas between, or all: those that the data set holds."
)
@click.option(
    "--data",
    default="auto",
    help="mvtec_ad, elpv, synthetic, a folder that holds the categories' folders, or auto: mvtec_ad where "
    "data/mvtec_ad holds any, else elpv.",
)
@DATA_DIR
@run_options
@click.option("--build-dir", default="build", type=PATH, help="Where builds are kept.")
@click.option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="What the graphs compute in.",
)
@config_options(*FIT_FIELDS)
@cluster_options
@click.option(
    "--force",
    is_flag=True,
    help="Make anew also where a finished run has other options, images or code; it is kept in its folder earlier/.",
)
def fleet(
    categories: str,
    data: str,
    data_dir: Path,
    run: RunOptions,
    build_dir: Path,
    precision: str,
    asked: ConfigOptions,
    cluster: ClusterOptions,
    force: bool,
) -> None:
    """Fit, evaluate and export many categories as Ray tasks; what is up to date is not made again.

    Each task runs `train fit`, `train evaluate` and `export onnx`, each in a process of its own.
    """
    from train.data.sources import find_categories
    from train.fleet.alike import require_here
    from train.fleet.outcome import final_table, require_success
    from train.fleet.plan import FleetPlan, Share
    from train.fleet.run import run_fleet

    asked.config()  # wrong options are told once, and not by every task
    with _exiting_with_2():
        dataset, names = find_categories(
            categories, data=data, data_dir=data_dir, elsewhere=cluster.address is not None
        )
    plan = FleetPlan(
        categories=names,
        data=dataset,
        data_dir=data_dir,
        runs_dir=run.runs_dir,
        build_dir=build_dir,
        preset=asked.preset,
        fields=asked.overrides,
        weights_dir=asked.weights_dir,
        strict=run.strict,
        device=run.device,
        precision=precision,
        force=force,
    )
    if cluster.address is None:
        with _exiting_with_2():
            require_here(plan)
    show_banner(dataset == "synthetic")
    gpus = cluster.gpus_per_task
    share = Share(cluster.cpus_per_task, gpus or 0.0, cluster.memory_per_task, cluster.retries)
    outcome = run_fleet(plan, address=cluster.address, share=share, gpus_asked=gpus is not None)
    click.echo(final_table(outcome, runs_dir=run.runs_dir).markdown(), nl=False)
    require_success(outcome)


@contextmanager
def _exiting_with_2() -> Iterator[None]:
    """Let a fault in what was asked for end the command as a wrong option does, as nothing has begun."""
    try:
        yield
    except DataError as error:
        raise AskedInVainError(error.message) from None
