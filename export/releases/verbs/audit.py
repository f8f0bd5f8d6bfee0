"""The audit log, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from export.errors import PublishError
from export.releases.audit.log import AuditLog, log_path
from export.releases.audit.signatures import short

COLUMNS = ("line", "when", "who", "what", "category", "number", "live", "reason", "signed by")


def lines_of(root: Path, category: str | None = None) -> list[dict[str, Any]]:
    """What each line of a repository's log says; of one category where it is named.

    Raises:
        PublishError: there is no such line, or one cannot be read.
    """
    log = AuditLog.read(root)
    found = []
    for number, line in enumerate(log.lines(), start=1):
        if line is None:
            raise PublishError(
                f"Line {number} of {log_path(root)} was changed and cannot be read; `python -m deploy check` says "
                "what else was; restore the file."
            )
        if category in (None, line.category):
            found.append(line.model_dump())
    if not found:
        of = f" about {category!r}" if category else ""
        raise PublishError(f"{log_path(root)} holds no line{of}; publishing a release adds one.")
    return found


def audit_table(lines: Iterable[dict[str, Any]]) -> Table:
    """A row for each line, times as UTC."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in COLUMNS:
        right = heading in ("line", "number", "live")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for line in lines:
        live = line["live"]
        cells = (
            str(line["line"]),
            line["at"][:16].replace("T", " "),
            f"{line['by']}@{line['host']}",
            line["what"],
            line["category"],
            str(line["release"]),
            str(live["number"]) if live else "",
            line["reason"],
            short(line["key"]) if line["key"] else "",
        )
        table.add_row(*map(Text, cells))  # a reason may hold brackets
    return table
