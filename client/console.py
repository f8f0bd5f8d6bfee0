"""What people read: progress goes to standard error, results to standard output, figures are written one way."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

import click
from rich.console import Console, RenderableType


class OutputError(click.ClickException):
    """What is printed cannot be written; 1 would say that anomalies were found."""

    exit_code = 2


class Output(Console):
    """A console that ends in peace when nobody reads on, and with one sentence when its disk is full."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints.

        Raises:
            OutputError: what is printed cannot be written.
        """
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            self.on_broken_pipe()
        except OSError as error:
            self._discard()
            raise OutputError(f"Standard output cannot be written ({error.strerror}).") from None

    def on_broken_pipe(self) -> None:
        """`| head -1` has what it wanted."""
        self._discard()

    def _discard(self) -> None:
        """Print nothing more, and let what waits to be flushed go nowhere."""
        self.quiet = True
        with contextlib.suppress(OSError):  # a test's stream has no file behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = Output(stderr=True, highlight=False)
output = Output(highlight=False)

FILE_WIDTH = 130
MISSING = "not available"


def say(text: str) -> None:
    """A line to standard error, as it stands; where nobody reads on, nothing more is said."""
    console.print(printable(text), soft_wrap=True, markup=False, emoji=False, highlight=False)


def show_any_text() -> None:
    """Let standard output take what its encoding lacks, as `\\xfc`: in an ASCII terminal, or of a file's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """A file's name on one line: control characters and bytes that are no text are escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(value: float | None, form: str, *, missing: str = MISSING) -> str:
    """A figure in a form such as `{:.2f} ms`; `missing` where there is none."""
    return missing if value is None else form.format(value)


def print_wide(table: RenderableType) -> None:
    """Print a wide table; to a file or a pipe FILE_WIDTH characters wide, where rich would take 80."""
    wide = output if output.is_terminal else Output(highlight=False, width=FILE_WIDTH)
    wide.print(table)
