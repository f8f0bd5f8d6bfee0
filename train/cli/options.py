"""What the commands of the training stage share: groups of options as objects, and the banner of synthetic data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from model_repository.image_size import ImageSize
from train.config import PRESETS, FitConfig, field_text, fit_config
from train.support.category_names import check_category_name
from train.support.command_options import Command, Option, options_as
from train.support.devices import Runtime
from train.support.tables import SYNTHETIC_NOTE

if TYPE_CHECKING:
    from train.data.category import CategoryData

PATH = click.Path(path_type=Path)
FIT_FIELDS = tuple(name for name in FitConfig.model_fields if name not in ("preset", "weights", "regions"))
NO_REGIONS = "none"  # asked for in place of a file
DATA = click.option(
    "--data",
    help="mvtec_ad, elpv, synthetic, a folder of your own, or auto: MVTec AD where data/mvtec_ad has the category, "
    "ELPV for mono and poly, else synthetic.  [default: the images that the category's run remembers, else auto]",
)
DATA_DIR = click.option("--data-dir", default="data", type=PATH, help="Where data sets lie.")
RUNS_DIR = click.option("--runs-dir", default="runs", type=PATH, help="Where runs are kept.")
DEVICE = click.option("--device", default="auto", help="cuda, cpu, or auto: CUDA where there is one.")
KNOWN_DEFECTS = click.option(
    "--known-defects",
    metavar="DIR",
    help="Folder of images of defective parts, with or without masks. Nothing is trained on them: they choose stage "
    "weights, smoothing and foreground, and show what escapes; none: without.  [default: those that the category's run "
    "remembers]",
)


def read_asked_regions(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Mapping[str, Any]:
    """The field `regions` of a configuration as it was asked for; empty where nothing was asked."""
    if value is None:
        return {}
    from train.data.regions import read_regions

    return {"regions": None if value == NO_REGIONS else read_regions(Path(value))}


REGIONS = click.option(
    "--regions",
    metavar="FILE",
    callback=read_asked_regions,
    help="Polygons of where pictures are inspected and what is ignored there, as JSON, which the page draws; none: all "
    "is inspected. A finished run is calibrated anew and not trained.  [default: those that the category's run "
    "remembers]",
)


@dataclass(frozen=True)
class CategoryOptions:
    """A category, and the data set or folder that holds its images; None means those that its run remembers."""

    name: str
    data: str | None
    data_dir: Path

    def __post_init__(self) -> None:
        """Raise DataError about a name that no category can have, before anything is looked for under it."""
        check_category_name(self.name)

    def find(self, *, runs_dir: Path, quiet: bool = False) -> CategoryData:
        """The category's images, laid out first where the data set is one we can make.

        Unless a data set was asked for they are those of the category's run in `runs_dir`, where it has one. The banner
        of synthetic data is shown unless `quiet`.

        Raises:
            DataError: see `train.data.sources.find_category`, or the images that a run remembers are gone.
        """
        from train.data.sources import find_category
        from train.runs import remembered_images

        images = None
        if self.data is None:
            images = remembered_images(self.name, run_dir=runs_dir / self.name, data_dir=self.data_dir)
        if images is None:
            images = find_category(self.name, data=self.data or "auto", data_dir=self.data_dir)
        show_banner(images.synthetic and not quiet)
        return images


@dataclass(frozen=True)
class RunOptions:
    """Where runs lie, where networks compute, and whether a broken image stops them."""

    runs_dir: Path
    strict: bool
    device: str

    def runtime(self, weights_dir: Path | None) -> Runtime:
        """The run's needs, pretrained weights from that folder."""
        return Runtime(self.device, weights_dir, self.strict)


@dataclass(frozen=True)
class ConfigOptions:
    """What was asked for of a configuration.

    Attributes:
        preset: None where none was given.
        overrides: the fields of `FitConfig` that were given.
        weights_dir: where backbones have their weights from.
    """

    preset: str | None
    overrides: Mapping[str, Any]
    weights_dir: Path | None

    @classmethod
    def of(
        cls, *, preset: str | None, weights_dir: Path | None, random_weights: bool, **fields: Any
    ) -> ConfigOptions:
        """From the values of the options of `config_options`."""
        weights = {"weights": "random"} if random_weights else {}
        return cls(preset, given(fields) | weights, weights_dir)

    def config(self, **fields: Any) -> FitConfig:
        """The preset with what was asked for, and with `fields`.

        Raises:
            ConfigError: see `train.config.fit_config`.
        """
        return fit_config(self.preset or "edge", {**self.overrides, **fields})


category_options = options_as(
    "category",
    CategoryOptions,
    click.option("--category", "name", required=True, help="Product, e.g. pill, mono."),
    DATA,
    DATA_DIR,
)
run_options = options_as(
    "run",
    RunOptions,
    RUNS_DIR,
    click.option("--strict", is_flag=True, help="Stop at a broken image instead of skipping it."),
    DEVICE,
)


def config_options(*fields: str, preset: str | None = None) -> Callable[[Command], Command]:
    """A preset, some fields of `FitConfig` and weights: the argument `asked`, a `ConfigOptions`.

    Args:
        fields: their names; unless given on the command line, the preset decides.
        preset: the one that is taken where none is given; None is `edge`.
    """
    default = "  [default: edge]" if preset is None else ""
    return options_as(
        "asked",
        ConfigOptions.of,
        click.option(
            "--preset",
            type=click.Choice(list(PRESETS)),
            default=preset,
            help=f"Set of choices to start from.{default}",
        ),
        *map(config_option, fields),
        click.option("--weights-dir", type=PATH, help="Pretrained weights: <backbone>.safetensors or .pth."),
        click.option(
            "--random-weights", is_flag=True, help="Untrained backbones, for tests and timings only."
        ),
    )


def config_option(name: str, *, default: str | None = None) -> Option:
    """An option for a field of `FitConfig`; unless given, the preset decides, or what `default` says in words."""
    field = FitConfig.model_fields[name]
    values = {preset: getattr(config, name) for preset, config in PRESETS.items()}
    by_preset = ", ".join(
        f"{preset}: {field_text(name, value)}" for preset, value in values.items() if value is not None
    )
    option = "--" + name.replace("_", "-")
    help_text = f"{field.description}.  [{default or by_preset or 'none'}]"
    kind = field.annotation
    if kind is bool:
        return click.option(f"{option}/--no-{option[2:]}", name, default=None, help=help_text)
    return click.option(option, name, type=_option_type(kind), default=None, help=help_text)


def _option_type(annotation: Any) -> Any:
    """What click reads: choices, numbers, or a list of numbers with commas, which pydantic checks."""
    if annotation == ImageSize:
        return SizeText()
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    kinds = set(get_args(annotation) or (annotation,)) - {type(None)}
    if get_origin(annotation) is tuple:
        return CommaSeparated()
    return kinds.pop()


class SizeText(click.ParamType[Any]):
    """The side of a square or HEIGHTxWIDTH, which pydantic checks."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is."""
        return value


class CommaSeparated(click.ParamType[Any]):
    """Numbers with commas between, such as 1,2,3."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parts as texts; pydantic makes numbers of them."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given on the command line."""
    return {name: value for name, value in fields.items() if value is not None}


def parse_seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`0,1,2` as numbers, for an option's callback."""
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected whole numbers with commas between, found {value!r}.") from None
    if min(seeds) < 0:
        raise click.BadParameter(f"expected seeds of at least 0, found {min(seeds)}.")
    return seeds


SEEDS = click.option("--seeds", default="0", callback=parse_seeds, help="Seeds, with commas between.")


def show_banner(synthetic: bool) -> None:
    """Say that the data is synthetic, where it is."""
    if synthetic:
        rule = "=" * (len(SYNTHETIC_NOTE) + 4)
        click.secho(
            f"{rule}\n  {SYNTHETIC_NOTE}\n"
            f"  For real ones put MVTec AD under data/mvtec_ad/ or give a folder with --data.\n{rule}",
            fg="yellow",
            err=True,
        )
