"""Options that several commands share, each with its one default and help text."""

from __future__ import annotations

from pathlib import Path

import click

from model_repository.triton_release import SERVER_IMAGE
from train.support.category_names import check_category_name
from train.support.command_options import FiniteRange

PATH = click.Path(path_type=Path)
MAX_THREADS = 1024  # of a run: more than any machine has cores, fewer than a system lets a process have
MAX_INSTANCES = 64  # of a backbone, each with memory of its own
MILLISECONDS = FiniteRange(0, 3_600_000, min_open=True)  # an hour at most
PRECISIONS = ("fp32", "fp16", "int8")  # export.manifest.PRECISIONS, which costs a second to import


def parse_category(context: click.Context, option: click.Parameter, category: str) -> str:
    """The category's name, which must be one that folders and served models can have."""
    check_category_name(category)
    return category


category_option = click.option(
    "--category", required=True, callback=parse_category, help="Product, e.g. pill, mono."
)
build_dir_option = click.option("--build-dir", default="build", type=PATH, help="Where builds are kept.")
runs_dir_option = click.option(
    "--runs-dir", default="runs", type=PATH, help="Holds <category>/checkpoint.safetensors."
)
images_option = click.option(
    "--images",
    "images_dir",
    type=PATH,
    help="Real images to verify with.  [default: those it was trained on]",
)
weights_dir_option = click.option(
    "--weights-dir", type=PATH, help="Holds sam-vit-base/, for a checkpoint with --foreground sam."
)
precision_option = click.option(
    "--precision", default="fp32", type=click.Choice(PRECISIONS), help="What the graphs compute in."
)
limits_option = click.option(
    "--limits",
    "limits_file",
    type=PATH,
    help="TOML with other limits, a table a precision: flips = 0.01 under [int8], say.  [default: the strict ones]",
)
server_image_option = click.option(
    "--server-image", default=SERVER_IMAGE, help="NVIDIA's Triton image that loads the engines."
)
