"""Options of `serve`, `run` and `command` that say what is traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from deploy.tracing.tracing import DEFAULT_RATE, OFF, Tracing
from model_repository.trace_collector import (
    ENDPOINT,
    Collector,
    collector_of_environment,
    stated_collector,
)

MOST = 2**31 - 1  # Triton reads 32 bits


def parse_collector(_context: click.Context, _option: click.Parameter, url: str | None) -> Collector | None:
    """The collector that the option names."""
    try:
        return None if url is None else stated_collector(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_options = (
    click.option(
        "--trace",
        "collector",
        metavar="URL",
        callback=parse_collector,
        help="Send spans of OpenTelemetry to this collector, http://HOST:4318 say: one a request and one a step. "
        f"{ENDPOINT} names one, too.  [default: nothing is traced]",
    ),
    click.option(
        "--trace-rate",
        default=DEFAULT_RATE,
        type=click.IntRange(0, MOST),
        help="Trace one in so many of the requests that no client traces; 0: none. Those that one does are all traced.",
    ),
)


@dataclass(frozen=True)
class TracingOptions:
    """What the options say."""

    collector: Collector | None
    rate: int

    def tracing(self) -> Tracing:
        """What is traced; what a variable says wrongly hinders no server, and is told."""
        try:
            collector = self.collector or collector_of_environment()
        except ValueError as error:
            click.echo(f"Note: {str(error).rstrip('.')}; nothing is traced.", err=True)
            return OFF
        return Tracing(collector, self.rate)


def tracing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, as one argument `traced`."""

    @functools.wraps(command)
    def with_tracing(*arguments: Any, collector: Collector | None, trace_rate: int, **options: Any) -> Any:
        return command(*arguments, traced=TracingOptions(collector, trace_rate), **options)

    decorated: Callable[..., Any] = with_tracing
    for option in reversed(_options):
        decorated = option(decorated)
    return decorated
