"""`predict`: judge image files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from client.cli.options import AT_LEAST_ONE, PATH, TIMEOUT, URL


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--category", required=True, help="Published product, e.g. pill, mono.")
@URL
@TIMEOUT
@click.option("--encoded", is_flag=True, help="Send the files as they are and let the server decode them.")
@click.option("--score-only", is_flag=True, help="Ask for scores alone; no map leaves the server.")
@click.option(
    "--in-flight", default=4, type=AT_LEAST_ONE, help="Requests that may be on their way at a time."
)
@click.option("--batch", default=1, type=AT_LEAST_ONE, help="Images a request.")
@click.option("--threshold", type=float, help="Image threshold in place of the release's own.")
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Hand images and maps over through system shared memory; the server must be on this host.",
)
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
@click.option("--jsonl", type=PATH, help="Write every answer there, one JSON object a line.")
@click.option("--overlays", type=PATH, help="Write a picture of every answer into this folder.")
@click.option("--skip-broken", is_flag=True, help="Exit with 0 although images are broken.")
def predict(
    paths: tuple[Path, ...],
    category: str,
    url: str,
    timeout_s: float,
    shared_memory: bool,
    load: bool,
    jsonl: Path | None,
    overlays: Path | None,
    skip_broken: bool,
    **asking_options: Any,
) -> None:
    """Judge image files and folders; broken images are named, and the exit code is then 1."""
    from client.console import output
    from client.judging.connection import JudgeClient
    from client.pictures.images import find_images
    from client.predictions import Asking, predict_images, predictions_table, write_jsonl

    asking = Asking(**asking_options)
    if asking.score_only and overlays:
        raise click.UsageError(
            "--overlays draws the maps that --score-only does not ask for; leave one of them out."
        )
    images = find_images(paths)
    with JudgeClient(
        url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
    ) as judge:
        predictions, faults = predict_images(judge, images, asking=asking, overlays_dir=overlays)
    if predictions:
        output.print(predictions_table(predictions))
        anomalous = sum(entry.anomalous for entry in predictions)
        output.print(
            f"{len(predictions)} judged: {anomalous} anomalous, {len(predictions) - anomalous} good."
        )
    if jsonl:
        write_jsonl(predictions, jsonl)
    for fault in faults:
        click.echo(f"{'Skipped' if skip_broken else 'Error'}: {fault}", err=True)
    if faults:
        click.echo(f"{len(faults)} of {len(images)} images are broken.", err=True)
    if faults and not skip_broken:
        raise SystemExit(1)
