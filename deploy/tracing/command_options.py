"""Options of `serve`, `run` and `command` that say what is traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from deploy.tracing.tracing import DEFAULT_RATE, OFF, Tracing
from model_repository.trace_collector import (
    DISABLED,
    ENDPOINT,
    Collector,
    collector_of_environment,
    is_disabled,
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
        type=click.IntRange(0, MOST),
        help="Trace one in so many of the requests that no client traces; 0: none. Those that one does are all traced."
        f"  [default: {DEFAULT_RATE}]",
    ),
)


@dataclass(frozen=True)
class TracingOptions:
    """What the options say; None is nothing."""

    collector: Collector | None
    rate: int | None

    def tracing(self) -> Tracing:
        """What is traced; what a variable says wrongly hinders no server, and is told."""
        if is_disabled():
            if self.collector is not None:
                _note(f"{DISABLED} is true; nothing is traced, though --trace names a collector.")
            return OFF
        try:
            collector = self.collector or collector_of_environment()
        except ValueError as error:
            _note(f"{str(error).rstrip('.')}; nothing is traced.")
            return OFF
        if collector is None and self.rate is not None:
            _note(
                f"--trace-rate {self.rate} has no effect, as no collector is named: give --trace, or set {ENDPOINT}."
            )
        return Tracing(collector, DEFAULT_RATE if self.rate is None else self.rate)


def _note(sentence: str) -> None:
    click.echo(f"Note: {sentence}", err=True)


def tracing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, as one argument `traced`."""

    @functools.wraps(command)
    def with_tracing(
        *arguments: Any, collector: Collector | None, trace_rate: int | None, **options: Any
    ) -> Any:
        return command(*arguments, traced=TracingOptions(collector, trace_rate), **options)

    decorated: Callable[..., Any] = with_tracing
    for option in reversed(_options):
        decorated = option(decorated)
    return decorated
