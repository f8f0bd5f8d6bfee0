"""What came of a fleet: the last table, what it leaves to do, and whether that is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from train.errors import TrainingError
from train.fleet.board import DONE, FAILED, UP_TO_DATE, FleetState
from train.fleet.table import COLUMNS, TRAINING, row_cells
from train.runs import data_fingerprints
from train.support.tables import ResultTable


@dataclass(frozen=True)
class FleetOutcome:
    """What came of a fleet.

    Attributes:
        state: its rows.
        other_code: categories that other code made, and that were left as they are.
        unknown_code: categories that do not say which code made them.
        stopped: whether it was asked to stop before its end.
    """

    state: FleetState
    other_code: tuple[str, ...]
    unknown_code: tuple[str, ...]
    stopped: bool


def final_table(outcome: FleetOutcome, *, runs_dir: Path) -> ResultTable:
    """All rows; below them why some failed, and what is odd about others, a sentence each."""
    rows = outcome.state.rows
    notes = [
        f"{row.category}{f', on {row.node}' if row.node else ''}: {row.fault}"
        for row in rows.values()
        if row.fault
    ]
    if outcome.other_code:
        notes.append(
            f"Made by another version of the code: {_some(outcome.other_code)}. --force makes them anew."
        )
    if outcome.unknown_code:
        notes.append(
            f"Made by single commands, which do not say by which version of the code: {_some(outcome.unknown_code)}."
        )
    notes += [
        f"{_some(names)} were trained on the same images; look at their folders."
        for names in same_images(runs_dir, tuple(rows))
    ]
    shown = [position for position, column in enumerate(COLUMNS) if column != TRAINING]
    cells = [row_cells(row) for row in rows.values()]
    return ResultTable(
        title="Fleet",
        columns=tuple(COLUMNS[position] for position in shown),
        rows=tuple(tuple(texts[position] for position in shown) for texts in cells),
        notes=tuple(notes),
    )


def same_images(runs_dir: Path, categories: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Categories that were trained on the same images: `train fit` refuses that, unless they are trained at once."""
    by_fingerprint: dict[str, list[str]] = {}
    for category, fingerprint in data_fingerprints(runs_dir).items():
        by_fingerprint.setdefault(fingerprint, []).append(category)
    return [
        tuple(names)
        for names in by_fingerprint.values()
        if len(names) > 1 and not set(categories).isdisjoint(names)
    ]


def require_success(outcome: FleetOutcome) -> None:
    """Every category was made, or is up to date.

    Raises:
        TrainingError: some failed.
        Abort: it was stopped.
    """
    state = outcome.state
    made = state.count(DONE, UP_TO_DATE)
    if outcome.stopped:
        click.echo(
            f"Stopped: {made} of {len(state.rows)} categories are made; the same command goes on with the others.",
            err=True,
        )
        raise click.Abort()
    if failed := [row.category for row in state.rows.values() if row.state == FAILED]:
        raise TrainingError(
            f"{len(failed)} of {len(state.rows)} categories failed: {_some(failed)}; the table says why. "
            f"{'The others are made; mend' if made else 'Mend'} these and give the same command again."
        )


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
