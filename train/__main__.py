"""Command line of the training stage: `python -m train data | fit | evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from train.config import PRESETS

FOREGROUNDS = ("none", "threshold", "sam")
PATH = click.Path(path_type=Path)
CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


def _category_options(command: Callable[..., None]) -> Callable[..., None]:
    """Which category, and where its images lie."""
    return _apply(
        command,
        click.option("--category", required=True, help="Product, e.g. pill, mono."),
        click.option(
            "--data",
            default="auto",
            help="mvtec_ad, elpv, synthetic, a folder of your own, or auto: MVTec AD where data/mvtec_ad has the "
            "category, ELPV for mono and poly, else synthetic.",
        ),
        click.option("--data-dir", default="data", type=PATH, help="Where data sets lie."),
    )


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """How images become a run."""
    return _apply(
        command,
        click.option("--runs-dir", default="runs", type=PATH, help="Where runs are kept."),
        click.option("--strict", is_flag=True, help="Stop at a broken image instead of skipping it."),
        click.option("--device", default="auto", help="cuda, cpu, or auto: CUDA where there is one."),
    )


def _apply(command: Callable[..., None], *options: Callable[..., Any]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def _field(name: str, kind: Any, unit: str) -> Callable[..., Any]:
    """An option for a field of `FitConfig`; unless given, the preset decides."""
    values = {preset: getattr(config, name) for preset, config in PRESETS.items()}
    by_preset = ", ".join(f"{preset}: {value}" for preset, value in values.items() if value is not None)
    option = "--" + name.replace("_", "-")
    return click.option(option, name, type=kind, default=None, help=f"{unit}  [{by_preset}]")


_weights_dir = click.option(
    "--weights-dir",
    type=PATH,
    help="Pretrained weights: <backbone>.safetensors or .pth, and the folder sam-vit-base.",
)


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Fit the student to the frozen teacher on good images, calibrate it, evaluate it."""


@main.command()
@_category_options
@click.option("--print-test-dir", is_flag=True, help="Print the folder of its test images and nothing else.")
def data(category: str, data: str, data_dir: Path, print_test_dir: bool) -> None:
    """Lay out a category's images and count them."""
    from train.datasets import find_category

    found = find_category(category, data=data, data_dir=data_dir)
    if print_test_dir:
        click.echo(found.root / "test" if found.test else found.root)
        return
    _banner(found.synthetic)
    click.echo(f"{found.root}: {len(found.train_good)} good images to train on, {len(found.test)} to test.")


@main.command()
@_category_options
@_run_options
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), help="Set of choices to start from.  [default: edge]"
)
@_field("teacher", str, "timm name of the frozen teacher.")
@_field("student", str, "timm name of the student.")
@_field("image_size", int, "Side in pixels, a multiple of 32.")
@_field("steps", int, "Optimiser steps, in place of epochs.")
@_field("epochs", int, "Passes over the training images, in place of steps.")
@_field("batch_size", int, "Images a step.")
@_field("learning_rate", float, "Adam's step size.")
@_field("mask_ratio", float, "Share of feature positions hidden, 0 to 1.")
@_field("alpha", float, "Weight of the L2 distance (Eq. 5).")
@_field("foreground", click.Choice(FOREGROUNDS), "How the background is removed from the anomaly map.")
@_field("holdout_ratio", float, "Share of good images kept for calibration, 0 to 1.")
@_field("false_reject_rate", float, "Share of good images that may be rejected, 0 to 1.")
@_field("seed", int, "Seed of the split, the order, the masks and the blocks.")
@_weights_dir
@click.option("--random-weights", is_flag=True, help="Untrained backbones, for tests and timings only.")
@click.option("--force", is_flag=True, help="Train even when the checkpoint is up to date.")
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
    from train.datasets import find_category
    from train.fit import fit_category

    overrides = {name: value for name, value in fields.items() if value is not None}
    if random_weights:
        overrides["weights"] = "random"
    found = find_category(category, data=data, data_dir=data_dir)
    _banner(found.synthetic)
    result = fit_category(
        found,
        preset=preset,
        overrides=overrides,
        run_dir=runs_dir / category,
        weights_dir=weights_dir,
        device=_device(device),
        strict=strict,
        force=force,
    )
    click.echo(f"{'Trained' if result.trained else 'Up to date'}: {result.checkpoint_path}")


@main.command()
@_category_options
@_run_options
@click.option(
    "--foreground",
    type=click.Choice(FOREGROUNDS),
    help="How the background is removed from the anomaly map.  [default: as the checkpoint was trained]",
)
@_weights_dir
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
    from train.datasets import find_category
    from train.report import evaluate_category

    found = find_category(category, data=data, data_dir=data_dir)
    _banner(found.synthetic)
    outcome = evaluate_category(
        found,
        run_dir=runs_dir / category,
        device=_device(device),
        strict=strict,
        force=force,
        foreground=foreground,
        weights_dir=weights_dir,
    )
    click.echo(outcome)


def _device(name: str) -> Any:
    import torch

    from train.errors import ConfigError

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); use cpu."
        ) from None


def _banner(synthetic: bool) -> None:
    if synthetic:
        click.secho(
            "="
            * 78
            + "\n  SYNTHETIC DATA: rendered parts, not photographs. Figures say nothing about a real product.\n"
            "  For real ones put MVTec AD under data/mvtec_ad/ or give a folder with --data.\n" + "=" * 78,
            fg="yellow",
            err=True,
        )


if __name__ == "__main__":
    main(prog_name="python -m train")
