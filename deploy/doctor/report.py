"""The checks as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from deploy.doctor.check import Check, Verdict

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.MISSING: "red"}


def serving_is_possible(checks: Sequence[Check]) -> bool:
    """Whether nothing that serving needs is missing."""
    return all(check.verdict is not Verdict.MISSING for check in checks)


def to_json(checks: Sequence[Check]) -> str:
    """`serving` (whether it is possible) and `checks`: name, found, verdict, remedy, needed_for."""
    answer = {"serving": serving_is_possible(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(answer, indent=2)  # in ASCII: a path may be no text


def to_table(checks: Sequence[Check]) -> Table:
    """One row a check; what to do stands below what was found."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for check in checks:
        found = Text(check.found + (f" (needed for {check.needed_for})" if check.needed_for else ""))
        if check.remedy:
            found.append(f"\n{check.remedy}", style="bold")
        table.add_row(Text(check.name), Text(check.verdict, style=COLOURS[check.verdict]), found)
    return table


def conclusion(checks: Sequence[Check]) -> str:
    """Whether serving is possible, and what stands against it."""
    missing = [check.name for check in checks if check.verdict is Verdict.MISSING]
    warnings = [check.name for check in checks if check.verdict is Verdict.WARNING and check.remedy]
    rest = f" Look at: {', '.join(warnings)}." if warnings else ""
    if missing:
        return f"Serving is not possible here; missing: {', '.join(missing)}.{rest}"
    return f"Serving is possible here.{rest}"
