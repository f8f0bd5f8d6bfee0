"""What each category's task is at: what nodes report, and what the driver makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

# What a task is at, by the command that it runs.
AT_WORK = {"check": "checking", "fit": "fitting", "evaluate": "evaluating", "export": "exporting"}
WAITING, DONE, UP_TO_DATE, FAILED, STOPPED = "waiting", "done", "up to date", "failed", "stopped"
ENDED = (DONE, UP_TO_DATE, FAILED, STOPPED)


class Report(TypedDict):
    """What a node says while it works.

    Attributes:
        node: its name.
        attempt: which of its beginnings this is, from 0.
        stage: one of `train.fleet.code.STAGES`, or `check` while what is there may be up to date.
        step: training steps done.
        steps: how many there will be; 0 while nobody knows.
    """

    node: str
    attempt: int
    stage: str
    step: int
    steps: int


class Result(TypedDict):
    """What a task comes to.

    Attributes:
        node: where it ended.
        made: the stages that were made; the others were up to date.
        fault: one sentence where it failed, else empty.
        auroc: image AUROC on the test set, from 0 to 1; None where there is none.
        seconds: of the whole task, from its last beginning.
        told: what the commands warned of and left out.
        other_code: the stages that other code has made, and that were left as they are.
        unknown_code: whether a stage does not say which code made it.
        log: all that the commands have printed.
    """

    node: str
    made: list[str]
    fault: str
    auroc: float | None
    seconds: float
    told: list[str]
    other_code: list[str]
    unknown_code: bool
    log: str


class Board:
    """Collects the last report of each category; as an actor of Ray it stands beside the driver."""

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}
        self._begun: dict[str, int] = {}

    def begin(self, category: str) -> int:
        """Count a beginning of a task; return how many there were before."""
        before = self._begun.get(category, 0)
        self._begun[category] = before + 1
        return before

    def report(self, category: str, report: Report) -> None:
        """Take a node's word; that of an earlier attempt, which arrives late, counts no more."""
        known = self._reports.get(category)
        if known is None or known["attempt"] <= report["attempt"]:
            self._reports[category] = report

    def read(self) -> dict[str, Report]:
        """The last report of each category."""
        return dict(self._reports)


@dataclass
class CategoryState:
    """A row of the table."""

    category: str
    state: str = WAITING
    node: str = ""
    attempt: int = 0
    step: int = 0
    steps: int = 0
    auroc: float | None = None
    seconds: float | None = None
    fault: str = ""

    def is_elsewhere(self, node: str) -> bool:
        """Whether it was at work on another node than this one, which then was lost.

        The board that counts attempts may die with a node, and its word may come late.
        """
        return bool(self.node) and self.node != node

    def lost(self) -> str:
        """That its task was lost, a line."""
        return f"{self.category}: its task on {self.node or 'a node'} was lost; it begins again."

    @property
    def percent(self) -> int | None:
        """How far the training is; None where it is not known."""
        return (
            min(100, 100 * self.step // self.steps) if self.state == AT_WORK["fit"] and self.steps else None
        )


@dataclass
class FleetState:
    """All rows, in the order that was asked for."""

    rows: Mapping[str, CategoryState]

    @classmethod
    def of(cls, categories: tuple[str, ...]) -> FleetState:
        """Nothing has begun."""
        return cls({category: CategoryState(category) for category in categories})

    def heed(self, reports: Mapping[str, Report]) -> list[str]:
        """Take what nodes report; return a line for each row that is at something else, or somewhere else, now."""
        lines = []
        for category, report in reports.items():
            row = self.rows[category]
            if row.state in ENDED:
                continue
            before = (row.state, row.node, row.attempt)
            if report["attempt"] > row.attempt or row.is_elsewhere(report["node"]):
                lines.append(row.lost())
            row.state, row.node, row.attempt = AT_WORK[report["stage"]], report["node"], report["attempt"]
            row.step, row.steps = report["step"], report["steps"]
            if report["stage"] != "check" and before != (row.state, row.node, row.attempt):
                lines.append(f"{category}: {row.state} on {row.node}")
        return lines

    def end(self, category: str, result: Result) -> list[str]:
        """Take what a task came to; return what there is to say."""
        row = self.rows[category]
        lost = [row.lost()] if row.is_elsewhere(result["node"]) else []
        row.node, row.auroc, row.seconds = result["node"], result["auroc"], result["seconds"]
        row.fault = result["fault"]
        row.state = FAILED if row.fault else DONE if result["made"] else UP_TO_DATE
        measured = "" if row.auroc is None else f", AUROC {row.auroc:.4f}"
        said = f": {row.fault}" if row.fault else f" in {row.seconds:.0f} s{measured}"
        return [
            *lost,
            *(f"{category}: {sentence}" for sentence in result["told"]),
            f"{category}: {row.state} on {row.node}{said}",
        ]

    def fail(self, category: str, fault: str) -> list[str]:
        """Take that a task came to nothing; return what there is to say."""
        row = self.rows[category]
        row.state, row.fault = FAILED, fault
        return [f"{category}: failed: {fault}"]

    def stop(self) -> None:
        """Mark what has not ended as stopped."""
        for row in self.rows.values():
            if row.state not in ENDED:
                row.state = STOPPED

    def count(self, *states: str) -> int:
        """How many rows are in one of these states."""
        return sum(row.state in states for row in self.rows.values())
