"""Command line of the training stage: `python -m train data`, `fit`, `evaluate`, `baselines` and others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from train.cli.fleet import fleet
from train.cli.group import Commands
from train.cli.options import (
    FIT_FIELDS,
    KNOWN_DEFECTS,
    PATH,
    REGIONS,
    RUNS_DIR,
    CategoryOptions,
    ConfigOptions,
    RunOptions,
    category_options,
    config_option,
    config_options,
    run_options,
)
from train.cli.paper import ablate, complexity, reproduce
from train.cli.studies import baselines, contamination, suspects
from train.support.command_options import FiniteRange

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(cls=Commands, context_settings=CONTEXT)
def main() -> None:
    """Fit the student to the frozen teacher on good images, calibrate it, evaluate it."""


@main.command()
@category_options
@RUNS_DIR
@click.option("--print-test-dir", is_flag=True, help="Print the folder of its test images and nothing else.")
def data(category: CategoryOptions, runs_dir: Path, print_test_dir: bool) -> None:
    """Lay out a category's images and count them; say what is white in images of more than 8 bits."""
    from train.data.bit_depth import find_bit_depth

    images = category.find(runs_dir=runs_dir, quiet=print_test_dir)
    if print_test_dir:
        click.echo(os.fsencode(images.test_dir))
        return
    find_bit_depth(images)
    click.echo(
        f"{images.root}: {len(images.train_good)} good images to train on, {len(images.test)} to test."
    )


@main.command()
@category_options
@run_options
@config_options(*FIT_FIELDS)
@KNOWN_DEFECTS
@REGIONS
@click.option(
    "--ms-per-image",
    type=FiniteRange(min=0, min_open=True),
    help="What an image may take on this machine, milliseconds: bounds the size of --image-size auto.",
)
@click.option(
    "--as-before",
    is_flag=True,
    help="Options that are not given are those of the category's run, where it has one, not the preset's.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Train even when the run is up to date or made otherwise, or another category has these images. The run "
    "before is kept in earlier/.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Train where the run was made otherwise, which is kept in earlier/; else that is an error.",
)
def fit(
    category: CategoryOptions,
    run: RunOptions,
    asked: ConfigOptions,
    known_defects: str | None,
    regions: Mapping[str, Any],
    ms_per_image: float | None,
    as_before: bool,
    force: bool,
    replace: bool,
) -> None:
    """Train and calibrate a category; does nothing when its run has this whole configuration and these images."""
    from train.data.checks import check_training_data
    from train.runs import data_fingerprints, find_known_defects, fit_category, with_image_size

    images, run_dir = category.find(runs_dir=run.runs_dir), run.runs_dir / category.name
    known = find_known_defects(known_defects, run_dir=run_dir)
    check_training_data(images, fingerprints=data_fingerprints(run.runs_dir), force=force)
    runtime = run.runtime(asked.weights_dir)
    overrides = with_image_size(
        {**asked.overrides, **regions},
        images,
        preset=asked.preset,
        ms_per_image=ms_per_image,
        run_dir=run_dir,
        runtime=runtime,
        force=force,
        known=known,
    )
    trained = fit_category(
        images,
        preset=asked.preset,
        overrides=overrides,
        run_dir=run_dir,
        runtime=runtime,
        known=known,
        as_before=as_before,
        force=force,
        replace=replace,
    )
    click.echo(f"{'Trained' if trained else 'Up to date'}: {run_dir / 'checkpoint.safetensors'}")


@main.command()
@category_options
@run_options
@config_option("foreground", default="default: the checkpoint's")
@click.option("--weights-dir", type=PATH, help="Holds SAM's folder sam-vit-base.")
@click.option(
    "--known-defects",
    type=PATH,
    help="Show what escapes of a folder of defective images, and what they would choose; the release judges as it did. "
    " [default: those that chose for the release]",
)
@click.option("--force", is_flag=True, help="Evaluate even when metrics.json is up to date.")
def evaluate(
    category: CategoryOptions,
    run: RunOptions,
    foreground: str | None,
    weights_dir: Path | None,
    known_defects: Path | None,
    force: bool,
) -> None:
    """Judge the test set with the server's own fusion; write metrics.json and report.html."""
    from train.data.known_defects import read_known_defects
    from train.runs import evaluate_category, require_checkpoint

    run_dir = run.runs_dir / category.name
    require_checkpoint(run_dir)  # before images are looked for, or rendered, that nothing can judge
    outcome = evaluate_category(
        category.find(runs_dir=run.runs_dir),
        run_dir=run_dir,
        runtime=run.runtime(weights_dir),
        foreground=foreground,
        known=None if known_defects is None else read_known_defects(known_defects),
        force=force,
    )
    click.echo(outcome)


for command in (fleet, complexity, ablate, reproduce, baselines, suspects, contamination):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m train")
