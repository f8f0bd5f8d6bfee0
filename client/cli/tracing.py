"""`--trace`: spans of a command, to a collector."""

from __future__ import annotations

import click

from model_repository.trace_collector import (
    DISABLED,
    ENDPOINT,
    Collector,
    collector_of_environment,
    is_disabled,
    stated_collector,
)

MISSING = "OpenTelemetry is not installed here; install the extra: pip install 'astmfr[trace]'"


def _trace(context: click.Context, _option: click.Parameter, url: str | None) -> None:
    """Trace while the command runs; what a variable says wrongly hinders no command, and is told."""
    try:
        collector = collector_of_environment() if url is None else stated_collector(url)
    except ValueError as error:
        if url is not None:
            raise click.BadParameter(str(error)) from None
        _note(f"{str(error).rstrip('.')}; nothing is traced.")
        return
    if collector is None or context.resilient_parsing:
        return
    if is_disabled():  # and an option names a collector
        _note(f"{DISABLED} is true; nothing is traced, though --trace names a collector.")
    else:
        _begin(context, collector, stated=url is not None)


def _begin(context: click.Context, collector: Collector, *, stated: bool) -> None:
    try:
        from client.tracing.provider import tracing_to
    except ModuleNotFoundError:
        if stated:
            raise click.UsageError(f"{MISSING}.") from None
        _note(f"{ENDPOINT} is set, and {MISSING}. Nothing is traced.")
        return
    if not collector.listens():
        _note(f"nothing listens at {collector.address}; spans are lost until a collector does.")
    context.with_resource(tracing_to(collector, _note))


def _note(sentence: str) -> None:
    click.echo(f"Note: {sentence}", err=True)


TRACE = click.option(
    "--trace",
    metavar="URL",
    expose_value=False,
    callback=_trace,
    help="Send spans of OpenTelemetry to this collector, http://HOST:4318 say: one an image and one a call, above the "
    f"server's own. {ENDPOINT} names one, too.  [default: nothing is traced]",
)
