"""Command line of the training stage: `python -m train data | fit | evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from train.cli_paper import ablate, complexity, reproduce
from train.config import PRESETS, FitConfig

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


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of `FitConfig`; unless given, the preset decides."""
    fields = [name for name in FitConfig.model_fields if name not in ("preset", "weights")]
    return _apply(command, *(_config_option(name) for name in fields))


def _config_option(name: str) -> Callable[..., Any]:
    field = FitConfig.model_fields[name]
    values = {preset: getattr(config, name) for preset, config in PRESETS.items()}
    by_preset = ", ".join(
        f"{preset}: {_shown(value)}" for preset, value in values.items() if value is not None
    )
    option = "--" + name.replace("_", "-")
    help_text = f"{field.description}.  [{by_preset or 'none'}]"
    kind = field.annotation
    if kind is bool:
        return click.option(f"{option}/--no-{option[2:]}", name, default=None, help=help_text)
    return click.option(option, name, type=_option_type(kind), default=None, help=help_text)


def _option_type(annotation: Any) -> Any:
    """What click reads: choices, numbers, or a list of numbers with commas, which pydantic checks."""
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    kinds = set(get_args(annotation) or (annotation,)) - {type(None)}
    if get_origin(annotation) is tuple:
        return CommaSeparated()
    return kinds.pop()


class CommaSeparated(click.ParamType[Any]):
    """Numbers with commas between, such as 1,2,3."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parts as texts; pydantic makes numbers of them."""
        return tuple(value.split(",")) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


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
@_config_options
@click.option("--weights-dir", type=PATH, help="Pretrained weights: <backbone>.safetensors or .pth.")
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
@click.option("--force", is_flag=True, help="Evaluate even when metrics.json is up to date.")
def evaluate(
    category: str, data: str, data_dir: Path, runs_dir: Path, strict: bool, device: str, force: bool
) -> None:
    """Judge the test set with the server's own fusion; write metrics.json and report.html."""
    from train.datasets import find_category
    from train.report import evaluate_category

    found = find_category(category, data=data, data_dir=data_dir)
    _banner(found.synthetic)
    outcome = evaluate_category(
        found, run_dir=runs_dir / category, device=_device(device), strict=strict, force=force
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


for command in (complexity, ablate, reproduce):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m train")
