"""Commands that make builds, hold them to the checkpoint and time them: `onnx`, `verify`, `bench`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from export.cli.options import (
    MAX_THREADS,
    build_dir_option,
    category_option,
    images_option,
    limits_option,
    precision_option,
    runs_dir_option,
    weights_dir_option,
)
from export.product import ProductPaths
from model_repository.endpoint_options import endpoint_options
from train.support.command_options import options_as

if TYPE_CHECKING:
    from export.agreement import Agreement

product_options = options_as(
    "product",
    ProductPaths,
    category_option,
    build_dir_option,
    runs_dir_option,
    images_option,
    weights_dir_option,
)


@click.command()
@product_options
@precision_option
@limits_option
@click.option("--force", is_flag=True, help="Build even when up to date.")
def onnx(product: ProductPaths, precision: str, limits_file: Path | None, force: bool) -> None:
    """Write teacher.onnx and student.onnx, and foreground.onnx of SAM; verify them against the checkpoint.

    fp16 and int8 are made from the float32 graphs, carry their precision in the graph, and are accepted only when
    they judge the test set as the checkpoint does. int8 is calibrated on good training images.
    """
    from export.agreement import read_limits
    from export.builds.up_to_date import build_category
    from export.manifest import build_folder

    limits = read_limits(limits_file)[precision]
    result = build_category(product, precision, force=force, limits=limits, ask_tensorrt=True)
    folder, manifest = build_folder(product.build_dir, product.category, precision), result.manifest
    if not result.built:
        click.echo(f"Up to date: {folder}")
        return
    if precision != "fp32":
        from export.parity.table import agreement_table

        Console().print(agreement_table(product.category, manifest.agreements))
        _show_caveats(manifest.agreements)
    if manifest.kept_in_float:
        click.echo(f"In float: {len(manifest.kept_in_float)} convolutions, see {folder}/manifest.json")
    for parity in manifest.parity:
        click.echo(f"Batch {parity.batch}: largest difference from PyTorch {parity.max_difference:.1e}")
    if manifest.foreground_difference is not None:
        click.echo(f"SAM's masks: {manifest.foreground_difference:.3%} of the pixels differ from PyTorch")
    verdict = manifest.tensorrt_verdict
    click.echo(
        f"Taken by {verdict}" if verdict else "TensorRT was not asked: pip install 'astmfr[engine-check]'"
    )
    click.echo(f"Exported: {folder}, {precision}, release {manifest.release_id}")


def _show_caveats(agreements: Iterable[Agreement]) -> None:
    """Say what the comparisons do not show."""
    for agreement in agreements:
        if agreement.caveat:
            click.secho(f"No test set: {agreement.caveat}.", fg="yellow", err=True)


@click.command()
@product_options
@limits_option
@click.option("--url", help="host:port of a server's gRPC endpoint: ask its ensembles too.")
@endpoint_options
def verify(product: ProductPaths, limits_file: Path | None, url: str | None) -> None:
    """Judge the whole test set with every build, engine and live ensemble beside PyTorch; exit 1 beyond a limit.

    Limits: fp32 no flipped label and maps within 1e-4; fp16 0.0005 of AUROC and 0.2 % of the labels; int8 0.005 and
    1 %. The images that were judged otherwise are written to <category>/flipped/, the table to
    <category>/verification.json and into the manifests; a build beyond a limit is not published.
    """
    from export.agreement import read_limits
    from export.parity.gate import verify_category
    from export.parity.table import agreement_table

    result = verify_category(product, url=url, limits=read_limits(limits_file))
    Console().print(agreement_table(product.category, result.agreements))
    _show_caveats(result.agreements)
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
@click.option("--threads", default=0, type=click.IntRange(0, MAX_THREADS), help="Of a run; 0 is all cores.")
@click.option("--rounds", default=50, type=click.IntRange(3), help="Times each build is timed, in turns.")
def bench(
    category: str, build_dir: Path, runs_dir: Path, images_dir: Path | None, threads: int, rounds: int
) -> None:
    """Size of every build and its latency on this CPU, one image at a time, beside float32 in the same run."""
    from export.parity.latency import latency_table, measure_builds, write_latencies

    product = ProductPaths(category, runs_dir, build_dir, images_dir)
    latencies = measure_builds(product, threads=threads, rounds=rounds)
    Console().print(latency_table(latencies))
    click.echo(f"Report: {write_latencies(latencies, product.build / 'latency.json')}")
