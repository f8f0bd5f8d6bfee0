"""`explain`: why an image was judged as it was."""

from __future__ import annotations

import os
from pathlib import Path

import click

from client.cli.options import PATH, TIMEOUT, URL, utf8
from client.cli.tracing import TRACE
from model_repository.endpoint_options import endpoint_options


@click.command()
@click.argument("image", type=PATH)
@click.option("--category", required=True, callback=utf8, help="Published product, e.g. pill, mono.")
@URL
@endpoint_options
@TRACE
@TIMEOUT
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
@click.option(
    "--min-area", default=0, type=click.IntRange(0), help="Name no defects of fewer pixels of the original."
)
@click.option(
    "--output", "picture_path", type=PATH, help="Write a picture, PNG: image, overlay, the three maps."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table, the maps in it.")
def explain(
    image: Path,
    category: str,
    url: str,
    timeout_s: float,
    load: bool,
    min_area: int,
    picture_path: Path | None,
    as_json: bool,
) -> None:
    """Say why an image is judged as it is: what each stage of the networks adds to its score, and where.

    The steps of the category are asked one after the other, so that megabytes of features travel. Exits with 0
    whatever the verdict is, and with 2 where there is none.
    """
    from client.console import output, print_wide
    from client.explaining.asking import explain as explain_image
    from client.explaining.picture import draw_explanation
    from client.explaining.table import explanation_table, place_sentence
    from client.files import replace_file
    from client.judging.connection import JudgeClient
    from client.pictures.images import load_image

    _require_files(image, picture_path)
    with JudgeClient(url, category=category, timeout_s=timeout_s, load=load, probe=True) as judge:
        original = load_image(image, bit_depth=judge.bit_depth)
        explanation = explain_image(judge, original, name=str(image), min_area=min_area)
    if picture_path:
        picture = draw_explanation(explanation, original)
        replace_file(picture_path, lambda temporary: picture.save(temporary, format="PNG"))
    if as_json:
        output.print(explanation.to_json(), end="", soft_wrap=True, markup=False, emoji=False)
        return
    print_wide(explanation_table(explanation))
    output.print(place_sentence(explanation), soft_wrap=True, markup=False)


def _require_files(image: Path, path: Path | None) -> None:
    """Make sure, before the server is asked, that there is an image, and that the picture can be written elsewhere."""
    from client.core.errors import ImageFileError
    from client.files import require_writable_file

    try:
        image.open("rb").close()
    except OSError as error:
        raise ImageFileError(f"{image} cannot be read ({error.strerror}); give an image file.") from None
    if path is None:
        return
    if os.path.realpath(path) == os.path.realpath(image):
        raise click.UsageError(f"--output {path} is the image itself; give another file.")
    require_writable_file(path)
