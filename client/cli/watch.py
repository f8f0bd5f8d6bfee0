"""`watch`: judge every picture that arrives in a folder, exactly once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.options import AT_LEAST_ONE, PATH, TIMEOUT, URL, FiniteRange, utf8
from client.cli.tracing import TRACE
from model_repository.endpoint_options import endpoint_options

if TYPE_CHECKING:
    from client.watching.moving import Destinations
    from client.watching.sources.frames import Frames

SECONDS = FiniteRange(min=0, min_open=True)
SECRETS = "ASTMFR_WATCH_SECRETS"
INTERRUPTED = 130
DESTINATIONS = ("move_good", "move_bad", "move_unjudged", "remove_good")
FRAMES = ("every", "fps")
SINKS = ("jsonl", "webhook", "mqtt", "mqtt_ca", "opcua", "opcua_node")


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--category", required=True, callback=utf8, help="Published product, e.g. pill, mono.")
@URL
@endpoint_options
@TRACE
@TIMEOUT
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
@click.option("--once", is_flag=True, help="Judge what is there, and end: 0 all good, 1 anomalies, 2 errors.")
@click.option(
    "--journal", type=PATH, help="What was judged; on a disk of this machine.  [default: in DIR, hidden]"
)
@click.option("--move-good", type=PATH, help="Move good pictures into this folder.")
@click.option("--move-bad", type=PATH, help="Move anomalous pictures into this folder.")
@click.option("--move-unjudged", type=PATH, help="Move files that cannot be judged into this folder.")
@click.option(
    "--remove-good", is_flag=True, help="Remove good pictures once their verdict is in the journal."
)
@click.option(
    "--source",
    metavar="SOURCE",
    help="Put frames into DIR first: of video:FILE, rtsp://HOST/PATH or usb:NUMBER.",
)
@click.option("--every", default=1, type=AT_LEAST_ONE, help="Of a source, take each so many-th frame.")
@click.option("--fps", type=SECONDS, help="Of a source, take at most so many frames a second.")
@click.option("--jsonl", type=PATH, help="Append a line for each verdict to this file; - prints them.")
@click.option(
    "--webhook", metavar="URL", callback=utf8, help="Post each verdict there; signed, if there is a secret."
)
@click.option(
    "--mqtt", metavar="URL", callback=utf8, help="Publish each verdict: mqtt[s]://[USER@]HOST[:PORT][/TOPIC]."
)
@click.option("--mqtt-ca", type=PATH, help="Authorities that may have signed the broker's certificate; PEM.")
@click.option(
    "--opcua",
    metavar="URL",
    callback=utf8,
    help="Write each verdict into variables: opc.tcp://[USER@]HOST:PORT.",
)
@click.option(
    "--opcua-node",
    default="ns=2;s=Inspection.{}",
    callback=utf8,
    help="Id of those variables; {} is the name.",
)
@click.option(
    "--secrets",
    type=PATH,
    envvar=SECRETS,
    show_envvar=True,
    help="File with lines webhook=whsec_..., mqtt=PASSWORD, opcua=..., source=..., closed to others.",
)
@click.option(
    "--keep-days", type=SECONDS, help="Forget pictures of before that are no longer in DIR.  [default: none]"
)
@click.option(
    "--settle-s", default=0.5, type=SECONDS, help="A file is read when it has not changed for so long."
)
@click.option("--poll-s", default=0.2, type=SECONDS, help="Seconds between two looks into DIR.")
@click.option("--status-s", default=60.0, type=SECONDS, help="Seconds between two lines on how it goes.")
@click.option(
    "--in-flight", default=4, type=AT_LEAST_ONE, help="Pictures that may be on their way at a time."
)
def watch(
    folder: Path,
    category: str,
    url: str,
    timeout_s: float,
    load: bool,
    source: str | None,
    secrets: Path | None,
    **options: Any,
) -> None:
    """Judge every picture that arrives in DIR, exactly once, until Ctrl-C.

    What was judged is in a journal, so that nothing is lost or judged twice when this or the server ends and is started
    again. Events are lines on standard error.
    """
    from client.cli.stopping import stopped_by_signals
    from client.judging.connection import JudgeClient
    from client.watching.sinks.choice import Sinks
    from client.watching.watch import Watch
    from client.watching.watch import watch as watch_folder

    values = _secrets(secrets)
    destinations, sink_options = _destinations(options), {name: options.pop(name) for name in SINKS}
    asked = Watch(
        folder,
        category,
        destinations=destinations,
        frames=_frames(source, options, password=values.get("source")),
        sinks=Sinks(**sink_options, secrets=values),
        patience_s=timeout_s,
        **options,
    )
    with stopped_by_signals() as stop:
        try:
            tally = watch_folder(
                asked, lambda: JudgeClient(url, category=category, timeout_s=timeout_s, load=load), stop=stop
            )
        except KeyboardInterrupt:
            os._exit(
                INTERRUPTED
            )  # the journal needs no farewell, and the calls on their way are not waited for
    if tally.fault:
        click.echo(f"Error: {tally.fault}", err=True)
    raise SystemExit(tally.exit_code if asked.once or tally.fault else 0)


def _destinations(options: dict[str, Any]) -> Destinations:
    from client.watching.moving import Destinations
    from client.watching.rows import REMOVED

    good, bad, unjudged, remove_good = (options.pop(name) for name in DESTINATIONS)
    if good and remove_good:
        raise click.UsageError(
            "Good pictures cannot be both moved and removed; give --move-good or --remove-good."
        )
    return Destinations(REMOVED if remove_good else good, bad, unjudged)


def _frames(source: str | None, options: dict[str, Any], *, password: str | None) -> Frames | None:
    every, fps = (options.pop(name) for name in FRAMES)
    if source is None:
        if fps is not None or every != 1:
            raise click.UsageError(
                "--every and --fps choose frames of a --source; give one, or leave them out."
            )
        return None
    from client.watching.sources.capture import Source
    from client.watching.sources.frames import Frames

    return Frames(Source.of(source, password=password), every=every, fps=fps)


def _secrets(path: Path | None) -> dict[str, str]:
    """The secrets of a file; they are never on the command line, which everybody sees."""
    from client.core.errors import RequestError
    from model_repository.grpc_endpoint import read_key_file

    if path is None:
        return {}
    try:
        return read_key_file(path)
    except ValueError as error:
        raise RequestError(str(error)) from None
