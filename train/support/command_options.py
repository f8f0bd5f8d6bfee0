"""Options of a command line: several that reach the command as one object, and finite numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

Command = Callable[..., None]
Option = Callable[..., Any]


class FiniteRange(click.FloatRange):
    """A finite number in a range; click takes NaN in any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def options_as(argument: str, make: Callable[..., object], *options: Option) -> Callable[[Command], Command]:
    """Options that a command takes as one object.

    Args:
        argument: the object's name in the command.
        make: makes the object of the options' values, by their names: a dataclass, for example.
        options: in the order of `--help`.
    """

    def with_options(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    option_names = [str(option.name) for option in click.command(with_options(lambda **_: None)).params]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_one_object(*arguments: Any, **values: Any) -> None:
            made = make(**{name: values.pop(name) for name in option_names})
            command(*arguments, **values, **{argument: made})

        return with_options(with_one_object)

    return decorate
