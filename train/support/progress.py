"""Progress on long work: a bar with time left on a terminal, one closing line in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)


class ProgressBar:
    """One running bar; `advance` moves it and may replace the note at its end."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on by `count`; `note` (a loss, say) stands at the end of the line."""
        self._progress.update(self._task, advance=count, note=note)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[ProgressBar]:
    """Show a bar of `total` units while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield ProgressBar(progress, description, total)
