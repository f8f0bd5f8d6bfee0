"""A bar that says how many images a second are judged, and how long the rest takes; on a terminal alone."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from client.console import console


class RateColumn(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute; nothing before the first image."""
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.1f} images/s")


def progress_bar() -> Progress:
    """A bar on standard error, to be used as a context manager; nothing where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
