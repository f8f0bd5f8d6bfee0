"""The one table of a fleet: live on a terminal, plain lines in a log, and as a whole at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from train.fleet.board import AT_WORK, DONE, FAILED, STOPPED, UP_TO_DATE, WAITING, CategoryState, FleetState
from train.support.progress import console
from train.support.tables import MISSING, number

TRAINING = "training"  # how far it is, of the live table alone
COLUMNS = ("category", "state", "node", TRAINING, "AUROC", "seconds")
# Of the live table: what there is to look at comes first, for a terminal may be shorter than the table.
ORDER = (*AT_WORK.values(), FAILED, STOPPED, WAITING, DONE, UP_TO_DATE)
FRAME_LINES = 5  # of the live table: frame, head and the line below it
STYLES = {FAILED: "red", DONE: "green", UP_TO_DATE: "green", WAITING: "dim"}


class FleetDisplay:
    """Shows lines as they come, and above a live table the rows."""

    def __init__(self, live: Live | None) -> None:
        self._live = live

    def show(self, state: FleetState, lines: list[str]) -> None:
        """Show the rows as they are now; on a terminal only what is no row of the table is printed."""
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        if self._live is not None:
            self._live.update(live_table(state, height=console.height))


@contextmanager
def fleet_display(state: FleetState) -> Iterator[FleetDisplay]:
    """Show a fleet while the block runs; without a terminal there is no live table."""
    if not console.is_terminal:
        yield FleetDisplay(None)
        return
    with Live(live_table(state, height=console.height), console=console, transient=True) as live:
        yield FleetDisplay(live)


def live_table(state: FleetState, *, height: int) -> Table:
    """The rows that fit on a terminal of so many lines, and how many others are in which state."""
    rows = sorted(state.rows.values(), key=lambda row: ORDER.index(row.state))
    fitting = max(1, height - FRAME_LINES)
    left_out = rows[fitting:]
    caption = ", ".join(
        f"{count} {name}" for name in ORDER if (count := sum(row.state == name for row in left_out))
    )
    table = Table(*COLUMNS, "fault", caption=f"and {caption}" if left_out else None)
    for row in rows[:fitting]:
        table.add_row(*row_cells(row), row.fault, style=STYLES.get(row.state))
    return table


def row_cells(row: CategoryState) -> tuple[str, ...]:
    """A row's texts, one for each of `COLUMNS`."""
    percent = row.percent
    training = f"{percent} %" if percent is not None else f"step {row.step}" if row.step else MISSING
    return (
        row.category,
        row.state,
        row.node or MISSING,
        training if row.state == AT_WORK["fit"] else MISSING,
        number(row.auroc, 4),
        number(row.seconds, 0),
    )
