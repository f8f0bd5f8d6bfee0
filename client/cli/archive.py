"""`archive`: judge many images through several servers, with Ray Data, into one Parquet file."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.options import ANY_NUMBER, AT_LEAST_ONE, PATH, TIMEOUT, utf8
from client.cli.predict import ANOMALIES, ERRORS, GOOD
from client.cli.stopping import stopped_by_signals
from model_repository.endpoint_options import endpoint_options
from model_repository.grpc_endpoint import INSECURE

if TYPE_CHECKING:
    from client.archiving.archive import Outcome

EXTRA = ("ray", "pyarrow")
MISSING = (
    "An archive needs {name}, which is not installed here; install the extra: pip install 'astmfr[archive]'."
)
STOPPING = "Stopping; what is not done is judged when this is run again. Once more stops at once.\n"


@click.command()
@click.argument("source", type=PATH, metavar="DIR|LIST")
@click.option("--to", "results", required=True, type=PATH, help="The Parquet file to write; a row an image.")
@click.option("--category", required=True, callback=utf8, help="Published product, e.g. pill, mono.")
@click.option(
    "--url",
    "urls",
    multiple=True,
    default=("localhost:8001",),
    callback=lambda context, option, urls: [utf8(context, option, url) for url in urls],
    envvar="ASTMFR_URL",
    show_envvar=True,
    help="host:port of a server's gRPC endpoint; give it several times for several.",
)
@endpoint_options
@TIMEOUT
@click.option("--load", is_flag=True, help="Let a server load the category when it is not in memory.")
@click.option("--encoded", is_flag=True, help="Send the files as they are and let the servers decode them.")
@click.option("--score-only", is_flag=True, help="Ask for scores alone; no map leaves the servers.")
@click.option(
    "--in-flight",
    default=4,
    type=AT_LEAST_ONE,
    help="Requests that each worker may have on their way at a time, for each server.",
)
@click.option(
    "--batch", default=1, type=AT_LEAST_ONE, help="Images a request; fewer where the category takes fewer."
)
@click.option("--threshold", type=ANY_NUMBER, help="Image threshold in place of the release's own.")
@click.option(
    "--min-area", default=0, type=click.IntRange(0), help="List no defects of fewer pixels of the original."
)
@click.option("--workers", default=2, type=AT_LEAST_ONE, help="Processes that read images and ask.")
@click.option(
    "--shard",
    default=1000,
    type=AT_LEAST_ONE,
    help="Images that are judged together; a kill costs no more a worker.",
)
@click.option(
    "--address",
    callback=utf8,
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="host:port of a Ray cluster's head node, or auto on one of its machines.  [default: this machine alone]",
)
@click.option("--mixed-releases", is_flag=True, help="Go on where several releases judge.")
@click.option("--skip-broken", is_flag=True, help="Images without a verdict do not make the exit code 2.")
def archive(
    source: Path,
    results: Path,
    category: str,
    urls: list[str],
    timeout_s: float,
    load: bool,
    skip_broken: bool,
    address: str | None,
    workers: int,
    shard: int,
    mixed_releases: bool,
    **asking_options: Any,
) -> None:
    """Judge the images in a folder, or those that a text file names, through one or more servers.

    Each image has one row, whatever ends in between: run the same command again to go on. The exit code is 0 when all
    images are good, 1 when some are anomalous, and 2 when some have no verdict or anything else went wrong.
    """
    for name in EXTRA:
        if find_spec(name) is None:
            raise click.UsageError(MISSING.format(name=name))
    from client.archiving.archive import Archive
    from client.archiving.archive import archive as archive_images
    from client.archiving.work import Task, endpoints_of
    from client.console import say
    from client.predictions.outcome import Asking

    task = Task(
        category=category,
        endpoints=endpoints_of(urls),
        asking=Asking(**asking_options),
        timeout_s=timeout_s,
        load=load,
        insecure=os.environ.get(INSECURE, ""),
    )
    asked = Archive(
        source,
        results,
        task,
        workers=workers,
        shard=shard,
        address=address or None,
        mixed_releases=mixed_releases,
    )
    with stopped_by_signals(STOPPING) as stop:
        outcome = archive_images(asked, stop=stop, say=say)
    raise SystemExit(_tell(outcome, results, skipped=skip_broken))


def _tell(outcome: Outcome, results: Path, *, skipped: bool) -> int:
    """Say what was done and what was not; returns the exit code."""
    from client.archiving.parts import Parts
    from client.cli.predict import name_harmless
    from client.console import output, say

    tally = outcome.tally
    maybe_parts = [entry for entry in outcome.left_out if entry.may_be_part]
    name_harmless([entry for entry in outcome.left_out if not entry.may_be_part])
    word = "Skipped" if skipped else "Error"
    for sentence in (*tally.errors, *(f"{entry}; it was not judged." for entry in maybe_parts[:3])):
        say(f"{word}: {sentence}")
    if tally.not_judged:
        say(f"{tally.not_judged:,} images have no verdict; the column error says why.")
    if maybe_parts:
        say(f"{len(maybe_parts):,} files or folders that may be parts were left out.")
    if len(tally.releases) > 1:
        counts = ", ".join(
            f"{count:,} images by release {release}" for release, count in tally.releases.items()
        )
        say(f"Several releases judged: {counts}.")
    if outcome.fault:
        say(f"Error: {outcome.fault}")
        say(
            f"{tally.images:,} of {outcome.n_images:,} images are done, in {Parts(results).folder}; the same command "
            "goes on."
        )
    good = tally.judged - tally.anomalous
    note = " SYNTHETIC DATA: trained on rendered images." if tally.synthetic else ""
    rest = (
        f" {outcome.n_images - tally.judged:,} of {outcome.n_images:,} not judged."
        if tally.judged < outcome.n_images
        else ""
    )
    output.print(
        f"{tally.judged:,} judged: {tally.anomalous:,} anomalous, {good:,} good.{rest}{note}", soft_wrap=True
    )
    if not outcome.fault:
        output.print(str(results), soft_wrap=True, markup=False)
    if outcome.fault or not tally.judged or ((tally.not_judged or maybe_parts) and not skipped):
        return ERRORS
    return ANOMALIES if tally.anomalous else GOOD
