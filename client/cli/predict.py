"""`predict`: judge image files and folders."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from client.cli.options import ANY_NUMBER, AT_LEAST_ONE, PATH, TIMEOUT, URL, utf8
from model_repository.endpoint_options import endpoint_options

if TYPE_CHECKING:
    from client.pictures.folders import LeftOut
    from client.predictions.asking import Outcome
    from client.predictions.jsonl import AnswerFile

STDERR = 2  # written to directly: a signal may come while the stream is in use
NAMES_SHOWN = 3  # of files that are no images


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--category", required=True, callback=utf8, help="Published product, e.g. pill, mono.")
@URL
@endpoint_options
@TIMEOUT
@click.option("--encoded", is_flag=True, help="Send the files as they are and let the server decode them.")
@click.option("--score-only", is_flag=True, help="Ask for scores alone; no map leaves the server.")
@click.option(
    "--in-flight", default=4, type=AT_LEAST_ONE, help="Requests that may be on their way at a time."
)
@click.option("--batch", default=1, type=AT_LEAST_ONE, help="Images a request.")
@click.option("--threshold", type=ANY_NUMBER, help="Image threshold in place of the release's own.")
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Hand images and maps over through system shared memory; the server must be on this host.",
)
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
@click.option(
    "--jsonl",
    type=PATH,
    help="Append every answer there as it comes, one JSON object a line; an earlier run's answers are replaced.",
)
@click.option("--overlays", type=PATH, help="Write a picture of every answer into this folder.")
@click.option("--skip-broken", is_flag=True, help="Exit with 0 although images are broken or left out.")
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
    """Judge image files and folders, which are searched in depth.

    Everything that is not judged is named. The exit code is 2 when something among the images was left out that may be
    a part, and 1 when images are broken or the run ended early.
    """
    from client.judging.connection import JudgeClient
    from client.pictures.folders import find_images
    from client.predictions.asking import Asking, predict_images
    from client.predictions.drawing import require_folder_for_pictures
    from client.predictions.jsonl import AnswerFile

    asking = Asking(**asking_options)
    if asking.score_only and overlays:
        raise click.UsageError(
            "--overlays draws the maps that --score-only does not ask for; leave one of them out."
        )
    found = find_images(paths)
    if overlays:
        require_folder_for_pictures(overlays, judged=paths)
    answers = AnswerFile(jsonl) if jsonl else None
    with (
        JudgeClient(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
        ) as judge,
        _stopped_by_signals() as stop,
    ):
        outcome = predict_images(
            judge,
            found.images,
            asking=asking,
            overlays_dir=overlays,
            keep=answers.append if answers else lambda _: None,
            stop=stop,
        )
    _close(answers, outcome)
    exit_code = _name_faults(outcome, found.left_out, skipped=skip_broken)
    _show(outcome)
    raise SystemExit(exit_code)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Ctrl-C, or the SIGTERM by which a service or a container is stopped, sets the event; a second one interrupts.

    An exception at once could be raised in code that swallows it, and would lose the answers on their way.
    """
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with suppress(OSError):
            os.write(STDERR, b"Stopping after the answers on their way; once more stops at once.\n")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # `nohup` has some ignored.
    heeded = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    try:
        for number in heeded:
            signal.signal(number, handle)
        yield stop
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _close(answers: AnswerFile | None, outcome: Outcome) -> None:
    """Flush the answers; says where they are when the run ended early, and what was replaced."""
    if answers is None:
        return
    from client.files import StorageError

    try:
        replaced = answers.close(complete=outcome.stopped is None and not outcome.unanswered)
    except StorageError as error:
        outcome.stopped = outcome.stopped or error.message
        return
    if outcome.stopped and outcome.predictions:
        click.echo(f"What was answered so far is in {answers.path}.", err=True)
    if replaced:
        click.echo(replaced, err=True)


def _name_faults(outcome: Outcome, left_out: list[LeftOut], *, skipped: bool) -> int:
    """Name all that was not judged, and why; returns the exit code."""
    from client.pictures.folders import NO_IMAGE

    word = "Skipped" if skipped else "Error"
    maybe_parts = [entry for entry in left_out if entry.may_be_part]
    harmless = [entry for entry in left_out if not entry.may_be_part]
    others = [str(entry) for entry in sorted(harmless, key=lambda entry: entry.reason == NO_IMAGE)]
    if others:
        more = f"; and {len(others) - NAMES_SHOWN} more" if len(others) > NAMES_SHOWN else ""
        click.echo(f"Left out: {'; '.join(others[:NAMES_SHOWN])}{more}.", err=True)
    for sentence in (*outcome.broken, *(f"{entry}; it was not judged." for entry in maybe_parts)):
        click.echo(f"{word}: {sentence}", err=True)
    if outcome.broken:
        click.echo(f"{len(outcome.broken)} of {outcome.n_images} images are broken.", err=True)
    if maybe_parts:
        click.echo(f"{len(maybe_parts)} files or folders that may be parts were left out.", err=True)
    for sentence in outcome.unanswered:
        click.echo(f"Error: {sentence}", err=True)
    for fault in (outcome.no_pictures and f"No more pictures: {outcome.no_pictures}", outcome.stopped):
        if fault:
            click.echo(f"Error: {fault}", err=True)
    if outcome.stopped and outcome.next_image:
        click.echo(f"The first image without an answer is {outcome.next_image}.", err=True)
    if outcome.stopped or outcome.unanswered or outcome.no_pictures:
        return 1
    if skipped:
        return 0
    return 2 if maybe_parts else int(bool(outcome.broken))


def _show(outcome: Outcome) -> None:
    from client.console import output, print_wide
    from client.predictions.table import counts, predictions_table

    if outcome.predictions:
        print_wide(predictions_table(outcome.predictions))
    output.print(counts(outcome.predictions, n_images=outcome.n_images))
