"""`predict`: judge image files and folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.options import ANY_NUMBER, AT_LEAST_ONE, PATH, TIMEOUT, URL, utf8
from client.cli.stopping import stopped_by_signals
from client.cli.tracing import TRACE
from model_repository.endpoint_options import endpoint_options

if TYPE_CHECKING:
    from client.pictures.folders import LeftOut
    from client.predictions.outcome import Outcome
    from client.predictions.outputs import Outputs
    from client.report import Thumbnails

NAMES_SHOWN = 3  # of files that are no images
SENTENCES_SHOWN = 20  # of images that were not judged, a sentence each
GOOD, ANOMALIES, ERRORS = range(3)  # exit codes


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--category", required=True, callback=utf8, help="Published product, e.g. pill, mono.")
@URL
@endpoint_options
@TRACE
@TIMEOUT
@click.option("--encoded", is_flag=True, help="Send the files as they are and let the server decode them.")
@click.option("--score-only", is_flag=True, help="Ask for scores alone; no map leaves the server.")
@click.option(
    "--in-flight", default=4, type=AT_LEAST_ONE, help="Requests that may be on their way at a time."
)
@click.option("--batch", default=1, type=AT_LEAST_ONE, help="Images a request.")
@click.option("--threshold", type=ANY_NUMBER, help="Image threshold in place of the release's own.")
@click.option(
    "--min-area",
    default=0,
    type=click.IntRange(0),
    help="List no defects of fewer pixels of the original; the verdict does not depend on it.",
)
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Hand images and maps over through system shared memory; the server must be on this host.",
)
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
@click.option(
    "--jsonl",
    type=PATH,
    help="Append every answer there as it comes, one JSON object a line; an earlier run's answers are replaced. "
    "- is standard output.",
)
@click.option(
    "--csv",
    type=PATH,
    help="As --jsonl, a table: one row an image, with the number of its defects and the largest of them; images that "
    "were not judged too, and why.",
)
@click.option("--overlays", type=PATH, help="Write a picture of every answer into this folder.")
@click.option(
    "--report",
    type=PATH,
    help="Write one HTML page, to be sorted and filtered, with defects and pictures; when the run ends.",
)
@click.option(
    "--skip-broken", is_flag=True, help="Images that are broken or left out do not make the exit code 2."
)
def predict(
    paths: tuple[Path, ...],
    category: str,
    url: str,
    timeout_s: float,
    shared_memory: bool,
    load: bool,
    jsonl: Path | None,
    csv: Path | None,
    overlays: Path | None,
    report: Path | None,
    skip_broken: bool,
    **asking_options: Any,
) -> None:
    """Judge image files, folders, which are searched in depth, and patterns such as 'lot/**/left*.png'.

    The exit code is 0 when all images are good, 1 when some are anomalous, and 2 when some were not judged or anything
    else went wrong. Everything that is not judged is named or counted.
    """
    from client.judging.connection import JudgeClient
    from client.pictures.folders import find_images
    from client.predictions.asking import Asking, predict_images
    from client.predictions.drawing import require_folder_for_pictures
    from client.predictions.outputs import Outputs

    asking = Asking(**asking_options)
    if asking.score_only and overlays:
        raise click.UsageError(
            "--overlays draws the maps that --score-only does not ask for; leave one of them out."
        )
    found = find_images(paths)
    if overlays:
        require_folder_for_pictures(overlays, judged=paths)
    outputs = Outputs(jsonl=jsonl, csv=csv)
    thumbnails = _thumbnails(report, outputs)
    with (
        JudgeClient(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
        ) as judge,
        stopped_by_signals() as stop,
    ):
        outcome = predict_images(
            judge,
            found.images,
            asking=asking,
            overlays_dir=overlays,
            keep=outputs.keep,
            miss=outputs.miss,
            show=thumbnails.add if thumbnails else None,
            stop=stop,
        )
    faults = _close(outputs, outcome, found.left_out)
    if report and thumbnails:
        faults += _write_report(report, outcome, outputs, thumbnails)
    exit_code = _name_faults(outcome, found.left_out, faults, skipped=skip_broken)
    _show(outcome, outputs)
    raise SystemExit(exit_code)


def _thumbnails(report: Path | None, outputs: Outputs) -> Thumbnails | None:
    """What collects pictures for the page, where one is asked for; makes sure that it can be written."""
    if report is None:
        return None
    from client.report import Thumbnails, require_place_for_page

    if any(os.path.realpath(report) == os.path.realpath(path) for path in outputs.paths):
        raise click.UsageError(f"--report and another option are both {report}; give two files.")
    require_place_for_page(report)
    return Thumbnails()


def _close(outputs: Outputs, outcome: Outcome, left_out: list[LeftOut]) -> list[str]:
    """Flush the answers; says where they are when the run ended early, and what was replaced. Returns the faults."""
    from client.console import say
    from client.files import StorageError

    faults = []
    try:
        for entry in left_out:
            if entry.may_be_part and not outcome.stopped:
                outputs.miss(entry.path, f"it {entry.reason}.")
    except StorageError as error:
        faults.append(error.message)
    closed = outputs.close(complete=outcome.stopped is None and not outcome.unanswered)
    if outcome.stopped and outcome.predictions and outputs.paths:
        places = " and ".join(str(path) for path in outputs.paths)
        say(f"What was answered so far is in {places}.")
    for note in closed.notes:
        say(note)
    return faults + closed.faults


def _write_report(path: Path, outcome: Outcome, outputs: Outputs, thumbnails: Thumbnails) -> list[str]:
    """Write the page about all that was answered; returns why it could not be written."""
    from client.console import say
    from client.core.errors import ClientError
    from client.files import StorageError
    from client.report import Beside, write_report

    if not outcome.predictions:
        say(f"{path} was not written: no image was judged.")
        return []
    beside = Beside(missed=outputs.missed, thumbnails=thumbnails.by_image())
    try:
        write_report(path, predictions=outcome.predictions, metrics=None, speed=None, beside=beside)
    except (ClientError, StorageError) as error:
        return [error.message]
    return []


def _name_faults(outcome: Outcome, left_out: list[LeftOut], faults: list[str], *, skipped: bool) -> int:
    """Name all that was not judged, and why, and what else went wrong; returns the exit code."""
    from client.console import say
    from client.predictions.table import releases

    word = "Skipped" if skipped else "Error"
    maybe_parts = [entry for entry in left_out if entry.may_be_part]
    name_harmless([entry for entry in left_out if not entry.may_be_part])
    gone = [
        f"{folder} is gone or cannot be reached, and {count} of its images were not judged."
        for folder, count in outcome.vanished.items()
    ]
    _say_some(gone, "Error")
    not_judged = [*outcome.broken, *(f"{entry}; it was not judged." for entry in maybe_parts)]
    _say_some(not_judged, word)
    if outcome.broken:
        say(f"{len(outcome.broken)} of {outcome.n_images} images are broken.")
    if maybe_parts:
        say(f"{len(maybe_parts)} files or folders that may be parts were left out.")
    _say_some(outcome.unanswered, "Error")
    no_pictures = [f"No more pictures: {outcome.no_pictures}"] if outcome.no_pictures else []
    for fault in (*no_pictures, *([outcome.stopped] if outcome.stopped else []), *faults):
        say(f"Error: {fault}")
    if outcome.stopped and outcome.next_image:
        say(f"The first image without an answer is {outcome.next_image}.")
    if switched := releases(outcome.predictions):
        say(switched)
    if not outcome.predictions or outcome.stopped or outcome.unanswered or gone or no_pictures or faults:
        return ERRORS
    if not_judged and not skipped:
        return ERRORS
    return ANOMALIES if any(entry.anomalous for entry in outcome.predictions) else GOOD


def name_harmless(left_out: list[LeftOut]) -> None:
    """Name some of what is no image of a part, the ordinary last."""
    from client.console import say
    from client.pictures.folders import NO_IMAGE

    others = [str(entry) for entry in sorted(left_out, key=lambda entry: entry.reason == NO_IMAGE)]
    if others:
        more = f"; and {len(others) - NAMES_SHOWN} more" if len(others) > NAMES_SHOWN else ""
        say(f"Left out: {'; '.join(others[:NAMES_SHOWN])}{more}.")


def _say_some(sentences: list[str], word: str) -> None:
    """A line each of the first ones, and how many more there are."""
    from client.console import say

    for sentence in sentences[:SENTENCES_SHOWN]:
        say(f"{word}: {sentence}")
    if len(sentences) > SENTENCES_SHOWN:
        say(
            f"{word}: {len(sentences) - SENTENCES_SHOWN} more were not judged; --csv and --report name them all."
        )


def _show(outcome: Outcome, outputs: Outputs) -> None:
    from client.console import console, output, print_wide
    from client.predictions.table import counts, predictions_table

    if outputs.to_standard_output:
        console.print(counts(outcome.predictions, n_images=outcome.n_images))
        return
    if outcome.predictions:
        print_wide(predictions_table(outcome.predictions))
    output.print(counts(outcome.predictions, n_images=outcome.n_images))
