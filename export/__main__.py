"""Command line of the export stage: `python -m export onnx | verify | engine | publish`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path)

_category = click.option("--category", required=True, help="Product, e.g. pill, mono.")
_build_dir = click.option("--build-dir", default="build", type=PATH, help="Where builds are kept.")

_runs_dir = click.option(
    "--runs-dir", default="runs", type=PATH, help="Holds <category>/checkpoint.safetensors."
)
_images = click.option(
    "--images", type=PATH, help="Real images to verify with.  [default: those it was trained on]"
)
_weights_dir = click.option(
    "--weights-dir", type=PATH, help="Holds sam-vit-base/, for a checkpoint with --foreground sam."
)
_precision = click.option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "fp16", "int8"]),  # export.manifest.PRECISIONS, which costs a second to import
    help="What the graphs compute in.",
)


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Turn a checkpoint into verified ONNX graphs, and those into a Triton model repository."""


@main.command()
@_category
@_build_dir
@_runs_dir
@_images
@_weights_dir
@_precision
@click.option("--force", is_flag=True, help="Build even when up to date.")
def onnx(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images: Path | None,
    weights_dir: Path | None,
    precision: str,
    force: bool,
) -> None:
    """Write teacher.onnx and student.onnx, and foreground.onnx of SAM; verify them against the checkpoint.

    fp16 and int8 are made from the float32 graphs, carry their precision in the graph, and are accepted only when
    they judge the test set as the checkpoint does. int8 is calibrated on good training images.
    """
    from export.manifest import build_folder
    from export.parity import agreement_table
    from export.precisions import build_precision

    result = build_precision(
        category,
        precision,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images,
        force=force,
        weights_dir=weights_dir,
    )
    folder = build_folder(build_dir, category, precision)
    if not result.built:
        click.echo(f"Up to date: {folder}")
        return
    if precision != "fp32":
        Console().print(agreement_table(category, result.manifest.agreements))
    if result.manifest.kept_in_float:
        click.echo(f"In float: {len(result.manifest.kept_in_float)} convolutions, see {folder}/manifest.json")
    for parity in result.manifest.parity:
        click.echo(f"Batch {parity.batch}: largest difference from PyTorch {parity.max_difference:.1e}")
    if result.manifest.foreground_difference is not None:
        click.echo(
            f"SAM's masks: {result.manifest.foreground_difference:.3%} of the pixels differ from PyTorch"
        )
    click.echo(f"Exported: {folder}, {precision}, release {result.manifest.release_id}")


@main.command()
@_category
@_build_dir
@_runs_dir
@_images
@_weights_dir
@click.option("--url", help="host:port of a server's gRPC endpoint: ask its ensemble too.")
def verify(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images: Path | None,
    weights_dir: Path | None,
    url: str | None,
) -> None:
    """Judge the whole test set with every build, and a live ensemble, beside PyTorch; exit 1 beyond a limit.

    Limits: fp32 no flipped label and maps within 1e-4; fp16 0.0005 of AUROC and 0.2 % of the labels; int8 0.005 and
    1 %. The images that were judged otherwise are written to <category>/flipped/, the table to
    <category>/verification.json and into the manifests; a build beyond a limit is not published.
    """
    from export.gate import verify_category
    from export.parity import agreement_table

    result = verify_category(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images,
        url=url,
        weights_dir=weights_dir,
    )
    Console().print(agreement_table(category, result.agreements))
    click.echo(f"Report: {result.report}")
    if result.flipped:
        click.echo(f"Judged otherwise: {len(result.flipped)} pictures in {result.flipped[0].parents[1]}")
    for agreement in result.agreements:
        for sentence in agreement.beyond_limits:
            click.echo(f"Refused: {agreement.judge}: {sentence}.", err=True)
    if not result.accepted:
        sys.exit(1)


@main.command()
@_category
@_build_dir
@click.option("--keep", is_flag=True, help="Keep the engines beside the graphs, as <graph>.rtx.")
def engine(category: str, build_dir: Path, keep: bool) -> None:
    """Build every graph of a category with TensorRT for RTX, ahead of time and without a GPU.

    Shows whether TensorRT takes the graphs, in which types. The engines are for RTX cards, not for Triton.
    """
    from export.engine import check_engines, engine_table, keep_engine
    from export.manifest import existing_builds

    checked = check_engines(existing_builds(build_dir, category))
    Console().print(engine_table(checked))
    if keep:
        for found in checked:
            click.echo(f"Kept: {keep_engine(found)}")


@main.command()
@_category
@_build_dir
@click.option(
    "--repository", default="model_repository", type=PATH, help="The repository that Triton serves."
)
@click.option(
    "--platform",
    default="python",
    type=click.Choice(["python", "onnxruntime"]),
    help="What runs the backbones: python for the embedded server, onnxruntime for NVIDIA's container.",
)
@_precision
@click.option("--max-batch-size", default=8, type=click.IntRange(1, 128), help="Images a batch, at most.")
def publish(
    category: str, build_dir: Path, repository: Path, platform: str, precision: str, max_batch_size: int
) -> None:
    """Put a build into the model repository as a numbered release, and let the ensembles point to it."""
    from export.manifest import build_folder
    from export.publish import publish_category

    click.echo(
        publish_category(
            build_folder(build_dir, category, precision),
            repository=repository,
            platform=platform,
            max_batch_size=max_batch_size,
        )
    )


if __name__ == "__main__":
    main(prog_name="python -m export")
