"""What a collector lacks of a request is said, and its tools have to be there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from client.tracing.spans import CALL
from tests.benchmarks.collector import (
    COMPUTE,
    ENSEMBLE,
    JUDGE_SPAN,
    PROGRAM_SPAN,
    SERVER_SPAN,
    Listed,
    fault_of,
    find_tools,
)

STEP, NOW = "part_student", datetime(2026, 11, 27, tzinfo=UTC)
NAMES = (PROGRAM_SPAN, JUDGE_SPAN, CALL, SERVER_SPAN, ENSEMBLE, STEP, COMPUTE)


def whole_trace() -> list[Listed]:
    """A trace of one step: each span is below the one before it."""
    return [
        Listed(
            name,
            "t",
            id=str(depth + 1),
            parent=str(depth) if depth else "",
            start=NOW,
            end=NOW,
            attributes={},
        )
        for depth, name in enumerate(NAMES)
    ]


def test_a_whole_trace_has_no_fault() -> None:
    assert fault_of(whole_trace(), [STEP]) is None


@pytest.mark.parametrize("lost", range(len(NAMES)))
def test_a_span_that_did_not_come_is_named(lost: int) -> None:
    spans = whole_trace()
    del spans[lost]
    fault = fault_of(spans, [STEP])
    assert fault is not None
    assert fault.startswith(f"the collector has 0 spans '{' > '.join(NAMES[: lost + 1])}'")


def test_a_step_below_another_span_is_a_fault() -> None:
    spans = whole_trace()
    spans[5] = replace(spans[5], parent="4")  # the ensemble's sibling
    fault = fault_of(spans, [STEP])
    assert fault is not None
    assert f"has 0 spans '{' > '.join(NAMES[:6])}'" in fault


def test_a_span_more_than_expected_is_a_fault() -> None:
    spans = whole_trace()
    spans.append(replace(spans[5], id="9"))
    fault = fault_of(spans, [STEP])
    assert fault is not None
    assert f"has 2 spans '{' > '.join(NAMES[:6])}'" in fault
    stray = replace(spans[5], id="9", name="of another request", parent="lost")
    assert "has 1 spans '? > of another request'" in str(fault_of([*whole_trace(), stray], [STEP]))


def test_an_environment_without_the_collector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="has no package rotel; make it with"):
        find_tools(tmp_path)
