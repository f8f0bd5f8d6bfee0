"""Commands that hold builds to the checkpoint and time them: `verify`, `bench`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from export.cli.options import (
    build_dir_option,
    category_option,
    images_option,
    limits_option,
    runs_dir_option,
    weights_dir_option,
)


@click.command()
@category_option
@build_dir_option
@runs_dir_option
@images_option
@weights_dir_option
@limits_option
@click.option("--url", help="host:port of a server's gRPC endpoint: ask its ensembles too.")
def verify(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images_dir: Path | None,
    weights_dir: Path | None,
    limits_file: Path | None,
    url: str | None,
) -> None:
    """Judge the whole test set with every build, engine and live ensemble beside PyTorch; exit 1 beyond a limit.

    Limits: fp32 no flipped label and maps within 1e-4; fp16 0.0005 of AUROC and 0.2 % of the labels; int8 0.005 and
    1 %. The images that were judged otherwise are written to <category>/flipped/, the table to
    <category>/verification.json and into the manifests; a build beyond a limit is not published.
    """
    from export.agreement import read_limits
    from export.parity.gate import verify_category
    from export.parity.judges import agreement_table

    result = verify_category(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images_dir,
        url=url,
        limits=read_limits(limits_file),
        weights_dir=weights_dir,
    )
    Console().print(agreement_table(category, result.agreements))
    for sentence in result.not_run:
        click.echo(f"Not run: {sentence}")
    click.echo(f"Report: {result.report}")
    if result.flipped:
        click.echo(f"Judged otherwise: {len(result.flipped)} pictures in {result.flipped[0].parents[1]}")
    for agreement in result.agreements:
        for sentence in agreement.beyond_limits:
            click.echo(f"Refused: {agreement.judge}: {sentence}.", err=True)
    if not result.accepted:
        sys.exit(1)


@click.command()
@category_option
@build_dir_option
@runs_dir_option
@images_option
@click.option("--threads", default=0, type=click.IntRange(0), help="Of a run; 0 is all cores.")
@click.option("--rounds", default=50, type=click.IntRange(3), help="Times each build is timed, in turns.")
def bench(
    category: str, build_dir: Path, runs_dir: Path, images_dir: Path | None, threads: int, rounds: int
) -> None:
    """Size of every build and its latency on this CPU, one image at a time, beside float32 in the same run."""
    from export.parity.latency import latency_table, measure_builds, write_latencies

    latencies = measure_builds(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images_dir,
        threads=threads,
        rounds=rounds,
    )
    Console().print(latency_table(latencies))
    click.echo(f"Report: {write_latencies(latencies, build_dir / category / 'latency.json')}")
