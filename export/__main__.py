"""Command line of the export stage: `python -m export onnx | publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path)

_category = click.option("--category", required=True, help="Product, e.g. pill, mono.")
_build_dir = click.option("--build-dir", default="build", type=PATH, help="Where builds are kept.")


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Turn a checkpoint into verified ONNX graphs, and those into a Triton model repository."""


@main.command()
@_category
@_build_dir
@click.option("--runs-dir", default="runs", type=PATH, help="Holds <category>/checkpoint.safetensors.")
@click.option("--images", type=PATH, help="Real images to verify with.  [default: those it was trained on]")
@click.option("--weights-dir", type=PATH, help="Holds sam-vit-base/, for a checkpoint with --foreground sam.")
@click.option("--force", is_flag=True, help="Build even when up to date.")
def onnx(
    category: str, build_dir: Path, runs_dir: Path, images: Path | None, weights_dir: Path | None, force: bool
) -> None:
    """Write teacher.onnx and student.onnx, and foreground.onnx of SAM; verify them against the checkpoint."""
    from export.build import build_category

    result = build_category(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images,
        force=force,
        weights_dir=weights_dir,
    )
    if not result.built:
        click.echo(f"Up to date: {build_dir / category}")
        return
    for parity in result.manifest.parity:
        click.echo(f"Batch {parity.batch}: largest difference from PyTorch {parity.max_difference:.1e}")
    if result.manifest.foreground_difference is not None:
        click.echo(
            f"SAM's masks: {result.manifest.foreground_difference:.3%} of the pixels differ from PyTorch"
        )
    click.echo(f"Exported: {build_dir / category}, release {result.manifest.release_id}")


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
@click.option("--max-batch-size", default=8, type=click.IntRange(1, 128), help="Images a batch, at most.")
def publish(category: str, build_dir: Path, repository: Path, platform: str, max_batch_size: int) -> None:
    """Put a build into the model repository as a numbered release, and let the ensembles point to it."""
    from export.publish import publish_category

    click.echo(
        publish_category(
            build_dir / category, repository=repository, platform=platform, max_batch_size=max_batch_size
        )
    )


if __name__ == "__main__":
    main(prog_name="python -m export")
