"""The bar on a terminal; elsewhere there is none."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from client.predictions import progress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], str]:
    def run(terminal: bool) -> str:
        file = io.StringIO()
        monkeypatch.setattr(progress, "console", Console(file=file, force_terminal=terminal, width=120))
        with progress.progress_bar() as bar:
            task = bar.add_task("Judging", total=200)
            for _ in range(100):
                bar.advance(task)
        return file.getvalue()

    return run


def test_a_terminal_sees_rate_and_time_left(shown: Callable[[bool], str]) -> None:
    text = shown(True)
    assert "100/200" in text
    assert " images/s" in text
    assert " left" in text


def test_a_file_sees_nothing(shown: Callable[[bool], str]) -> None:
    assert shown(False).strip() == ""
