"""Command line of the training stage: `python -m train data`, `fit`, `evaluate`, `baselines` and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from train.cli.options import (
    PATH,
    category_options,
    config_option,
    config_options,
    overrides_of,
    preset_option,
    run_options,
    show_banner,
    weights_options,
)
from train.cli.paper import ablate, complexity, reproduce
from train.cli.studies import baselines, bench, contamination, suspects

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Fit the student to the frozen teacher on good images, calibrate it, evaluate it."""


@main.command()
@category_options
@click.option("--print-test-dir", is_flag=True, help="Print the folder of its test images and nothing else.")
def data(category: str, data: str, data_dir: Path, print_test_dir: bool) -> None:
    """Lay out a category's images and count them."""
    from train.data.sources import find_category

    found = find_category(category, data=data, data_dir=data_dir)
    if print_test_dir:
        click.echo(found.root / "test" if found.test else found.root)
        return
    show_banner(found.synthetic)
    click.echo(f"{found.root}: {len(found.train_good)} good images to train on, {len(found.test)} to test.")


@main.command()
@category_options
@run_options
@preset_option
@config_options
@weights_options
@click.option(
    "--force",
    is_flag=True,
    help="Train even when the checkpoint is up to date, or another run has these images.",
)
def fit(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    preset: str | None,
    weights_dir: Path | None,
    random_weights: bool,
    force: bool,
    **fields: Any,
) -> None:
    """Train and calibrate a category; does nothing when its checkpoint already answers to what is asked."""
    from train.data.checks import check_training_data
    from train.data.sources import find_category
    from train.runs import data_fingerprints, fit_category

    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    check_training_data(found, fingerprints=data_fingerprints(runs_dir), force=force)
    result = fit_category(
        found,
        preset=preset,
        overrides=overrides_of(fields, random_weights=random_weights),
        run_dir=runs_dir / category,
        weights_dir=weights_dir,
        device=device,
        strict=strict,
        force=force,
    )
    click.echo(f"{'Trained' if result.trained else 'Up to date'}: {result.checkpoint_path}")


@main.command()
@category_options
@run_options
@config_option("foreground")
@click.option("--weights-dir", type=PATH, help="Holds SAM's folder sam-vit-base.")
@click.option("--force", is_flag=True, help="Evaluate even when metrics.json is up to date.")
def evaluate(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    foreground: str | None,
    weights_dir: Path | None,
    force: bool,
) -> None:
    """Judge the test set with the server's own fusion; write metrics.json and report.html."""
    from train.data.sources import find_category
    from train.runs import evaluate_category

    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    outcome = evaluate_category(
        found,
        run_dir=runs_dir / category,
        device=device,
        strict=strict,
        force=force,
        foreground=foreground,
        weights_dir=weights_dir,
    )
    click.echo(outcome)


for command in (complexity, ablate, reproduce, baselines, suspects, contamination, bench):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m train")
