"""Tables for the terminal and for Markdown files, with one look in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MISSING, NOT_AVAILABLE = "–", "not available"
SYNTHETIC_NOTE = (
    "SYNTHETIC DATA: rendered parts, not photographs; these figures say nothing about a real product."
)


@dataclass(frozen=True)
class ResultTable:
    """A titled table of texts; `notes` stand below it, one line each."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table with padded columns, the first one to the left and the others to the right."""
        cells = [[_cell(text) for text in row] for row in (self.columns, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
        head, *body = [_line(row, widths) for row in cells]
        rule = _line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], widths)
        notes = [line for note in self.notes for line in ("", note)]
        return "\n".join([f"## {self.title}", "", head, rule, *body, *notes]) + "\n"


def number(value: float | None, digits: int = 1, *, missing: str = MISSING) -> str:
    """A figure, or `missing` (a dash) where there is none."""
    return missing if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """A measure of 0 to 1 with four decimal places, or `not available`."""
    return number(value, 4, missing=NOT_AVAILABLE)


def percent(value: float | None) -> float | None:
    """A measure of 0 to 1 in percent; None where there is none."""
    return None if value is None else 100 * value


def difference(value: float | None, reference: float | None) -> str:
    """How far a figure is above a reference, with its sign."""
    return MISSING if value is None or reference is None else f"{value - reference:+.1f}"


def with_spread(mean: float | None, spread: float | None) -> str:
    """Mean and, where there are several, their standard deviation."""
    return number(mean) if spread is None else f"{number(mean)} ± {spread:.2f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"
