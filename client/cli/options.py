"""Options that several commands take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A finite number in a range; `nan`, `inf` and `1e400` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def utf8(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Refuse text that cannot be sent to a server: bytes that are no UTF-8."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{text!a} is not UTF-8.") from None
    return text


PATH = click.Path(path_type=Path)
AT_LEAST_ONE = click.IntRange(1)
ANY_NUMBER = FiniteRange()
URL = click.option(
    "--url",
    default="localhost:8001",
    callback=utf8,
    envvar="ASTMFR_URL",
    show_envvar=True,
    help="host:port of the gRPC endpoint.",
)
TIMEOUT = click.option(
    "--timeout-s",
    default=10.0,
    type=FiniteRange(min=0, min_open=True),
    help="Deadline of every call, seconds.",
)
