"""The command that makes builds: `onnx`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.cli.options import (
    build_dir_option,
    category_option,
    images_option,
    limits_option,
    precision_option,
    runs_dir_option,
    weights_dir_option,
)


@click.command()
@category_option
@build_dir_option
@runs_dir_option
@images_option
@weights_dir_option
@precision_option
@limits_option
@click.option("--force", is_flag=True, help="Build even when up to date.")
def onnx(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images_dir: Path | None,
    weights_dir: Path | None,
    precision: str,
    limits_file: Path | None,
    force: bool,
) -> None:
    """Write teacher.onnx and student.onnx, and foreground.onnx of SAM; verify them against the checkpoint.

    fp16 and int8 are made from the float32 graphs, carry their precision in the graph, and are accepted only when
    they judge the test set as the checkpoint does. int8 is calibrated on good training images.
    """
    from export.agreement import read_limits
    from export.builds.up_to_date import build_category
    from export.manifest import build_folder

    result = build_category(
        category,
        precision,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images_dir,
        force=force,
        limits=read_limits(limits_file)[precision],
        weights_dir=weights_dir,
        ask_tensorrt=True,
    )
    folder, manifest = build_folder(build_dir, category, precision), result.manifest
    if not result.built:
        click.echo(f"Up to date: {folder}")
        return
    if precision != "fp32":
        from export.parity.judges import agreement_table

        Console().print(agreement_table(category, manifest.agreements))
    if manifest.kept_in_float:
        click.echo(f"In float: {len(manifest.kept_in_float)} convolutions, see {folder}/manifest.json")
    for parity in manifest.parity:
        click.echo(f"Batch {parity.batch}: largest difference from PyTorch {parity.max_difference:.1e}")
    if manifest.foreground_difference is not None:
        click.echo(f"SAM's masks: {manifest.foreground_difference:.3%} of the pixels differ from PyTorch")
    if manifest.tensorrt_verdict:
        click.echo(f"Taken by {manifest.tensorrt_verdict}")
    else:
        click.echo("TensorRT was not asked: pip install 'astmfr[engine-check]'")
    click.echo(f"Exported: {folder}, {precision}, release {manifest.release_id}")
