"""What the commands of the training stage share: options, the device, the banner of synthetic data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from train.config import PRESETS, FitConfig

PATH = click.Path(path_type=Path)


def category_options(command: Callable[..., None]) -> Callable[..., None]:
    """Which category, and where its images lie."""
    return apply_options(
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


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """How images become a run."""
    return apply_options(
        command,
        click.option("--runs-dir", default="runs", type=PATH, help="Where runs are kept."),
        click.option("--strict", is_flag=True, help="Stop at a broken image instead of skipping it."),
        click.option("--device", default="auto", help="cuda, cpu, or auto: CUDA where there is one."),
    )


def weights_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where backbones have their weights from."""
    return apply_options(
        command,
        click.option("--weights-dir", type=PATH, help="Pretrained weights: <backbone>.safetensors or .pth."),
        click.option(
            "--random-weights", is_flag=True, help="Untrained backbones, for tests and timings only."
        ),
    )


def preset_option(command: Callable[..., None]) -> Callable[..., None]:
    """The set of choices to start from."""
    option = click.option(
        "--preset", type=click.Choice(list(PRESETS)), help="Set of choices to start from.  [default: edge]"
    )
    return apply_options(command, option)


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of `FitConfig`; unless given, the preset decides."""
    fields = [name for name in FitConfig.model_fields if name not in ("preset", "weights")]
    return apply_options(command, *(config_option(name) for name in fields))


def config_option(name: str) -> Callable[..., Any]:
    """An option for a field of `FitConfig`; unless given, the preset decides."""
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


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


class CommaSeparated(click.ParamType[Any]):
    """Numbers with commas between, such as 1,2,3."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parts as texts; pydantic makes numbers of them."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def apply_options(command: Callable[..., None], *options: Callable[..., Any]) -> Callable[..., None]:
    """Options in the order of their listing."""
    for option in reversed(options):
        command = option(command)
    return command


def overrides_of(fields: dict[str, Any], *, random_weights: bool) -> dict[str, Any]:
    """The fields of `FitConfig` that were given on the command line."""
    overrides = {name: value for name, value in fields.items() if value is not None}
    return overrides | ({"weights": "random"} if random_weights else {})


def parse_seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`0,1,2` as numbers, for an option's callback."""
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected whole numbers with commas between, found {value!r}.") from None
    if min(seeds) < 0:
        raise click.BadParameter(f"expected seeds of at least 0, found {min(seeds)}.")
    return seeds


def show_banner(synthetic: bool) -> None:
    """Say that the data is synthetic, where it is."""
    if synthetic:
        click.secho(
            "="
            * 78
            + "\n  SYNTHETIC DATA: rendered parts, not photographs. Figures say nothing about a real product.\n"
            "  For real ones put MVTec AD under data/mvtec_ad/ or give a folder with --data.\n" + "=" * 78,
            fg="yellow",
            err=True,
        )
