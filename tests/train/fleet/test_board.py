"""What a table shows: states, percent, nodes that were lost, and why a category failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from train.errors import TrainingError
from train.fleet.board import Board, FleetState, Report, Result
from train.fleet.outcome import FleetOutcome, final_table, require_success
from train.fleet.table import live_table

RESULT: Result = {
    "node": "press-1", "made": ["fit", "evaluate", "export"], "fault": "", "auroc": 0.96154, "seconds": 61.6,
    "told": [], "other_code": [], "unknown_code": False, "log": "",
}  # fmt: skip


def report(
    stage: str = "fit", *, node: str = "press-1", attempt: int = 0, step: int = 0, steps: int = 0
) -> Report:
    return {"node": node, "attempt": attempt, "stage": stage, "step": step, "steps": steps}


def result(**changed: Any) -> Result:
    return {**RESULT, **changed}  # type: ignore[typeddict-item]


def test_a_board_counts_beginnings_and_forgets_what_an_earlier_one_says_late() -> None:
    board = Board()
    assert [board.begin("cap"), board.begin("cap"), board.begin("pill")] == [0, 1, 0]
    board.report("cap", report(node="press-2", attempt=1))
    board.report("cap", report("export", attempt=0))
    assert board.read()["cap"] == report(node="press-2", attempt=1)


def test_a_line_tells_what_changed_and_steps_alone_are_no_line() -> None:
    state = FleetState.of(("cap", "pill"))
    assert state.heed({"cap": report(step=3, steps=400)}) == ["cap: fitting on press-1"]
    assert state.heed({"pill": report("check")}) == []  # it may be up to date, which is one line
    state.rows["pill"].state = "waiting"
    assert state.heed({"cap": report(step=203, steps=400)}) == []
    assert (state.rows["cap"].percent, state.rows["pill"].percent) == (50, None)
    assert state.heed({"cap": report(node="press-2", attempt=1)}) == [
        "cap: its task on press-1 was lost; it begins again.",
        "cap: fitting on press-2",
    ]
    assert state.heed({"cap": report("evaluate", node="press-2", attempt=1)}) == [
        "cap: evaluating on press-2"
    ]
    assert state.end("cap", result(node="press-2", told=["Skipped: a.png"])) == [
        "cap: Skipped: a.png",
        "cap: done on press-2 in 62 s, AUROC 0.9615",
    ]
    assert state.heed({"cap": report("export", attempt=1)}) == []  # said late
    assert state.end("pill", result(made=[], auroc=None)) == ["pill: up to date on press-1 in 62 s"]


def test_a_lost_node_is_told_although_the_board_forgot_the_attempts_or_was_not_read_in_time() -> None:
    state = FleetState.of(("cap", "pill"))
    state.heed({"cap": report(), "pill": report()})
    assert state.heed({"cap": report(node="press-2")}) == [
        "cap: its task on press-1 was lost; it begins again.",
        "cap: fitting on press-2",
    ]
    assert state.end("pill", result(node="press-2")) == [
        "pill: its task on press-1 was lost; it begins again.",
        "pill: done on press-2 in 62 s, AUROC 0.9615",
    ]


def test_the_last_table_has_every_category_and_the_sentences_below(tmp_path: Path) -> None:
    state = FleetState.of(("cap", "pill", "screw", "nut"))
    state.end("cap", RESULT)
    state.end("pill", result(fault="/data/pill holds no images; put some there.", auroc=None))
    state.fail("screw", "its process or its node died.")
    state.stop()
    outcome = FleetOutcome(state, ("cap",), ("cap",), stopped=False)
    text = final_table(outcome, runs_dir=tmp_path).markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["category", "state", "node", "AUROC", "seconds"]
    assert rows[2] == ["cap", "done", "press-1", "0.9615", "62"]
    assert rows[5] == ["nut", "stopped", "–", "–", "–"]
    assert (
        "| nut      | stopped |" in text.replace("  ", " ").replace("| nut     ", "| nut      ")
        or "stopped" in text
    )
    assert "pill, on press-1: /data/pill holds no images; put some there." in text
    assert "screw: its process or its node died." in text
    assert "Made by another version of the code: cap. --force makes them anew." in text
    assert "which do not say by which version of the code: cap." in text
    with pytest.raises(TrainingError, match="2 of 4 categories failed: pill, screw; the table says why"):
        require_success(outcome)


def test_others_are_made_only_where_there_are_others() -> None:
    state = FleetState.of(("cap",))
    state.fail("cap", "broken")
    with pytest.raises(TrainingError, match=r"says why\. Mend these and give the same"):
        require_success(FleetOutcome(state, (), (), stopped=False))


def test_a_fleet_that_was_stopped_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    state = FleetState.of(("cap", "pill"))
    state.end("cap", RESULT)
    state.stop()
    with pytest.raises(click.Abort):
        require_success(FleetOutcome(state, (), (), stopped=True))
    assert "1 of 2 categories are made; the same command goes on" in capsys.readouterr().err
    state = FleetState.of(("cap",))
    state.end("cap", RESULT)
    require_success(FleetOutcome(state, (), (), stopped=False))


def test_a_low_terminal_shows_what_is_at_work_and_counts_the_rest() -> None:
    state = FleetState.of(tuple(f"part-{number:03}" for number in range(300)))
    state.heed({"part-200": report(step=100, steps=400)})
    state.end("part-000", RESULT)
    state.fail("part-299", "broken")
    console = Console(width=100, height=10, record=True, force_terminal=True)
    console.print(live_table(state, height=10))
    lines = console.export_text().splitlines()
    assert len(lines) <= 10
    assert ["part-200" in lines[3], "25 %" in lines[3]] == [True, True]
    assert ["part-299" in lines[4], "broken" in lines[4]] == [True, True]
    assert "and 294 waiting, 1 done" in lines[-1]
