"""Reports show one picture of each kind here: they are many, and tests/train/evaluation looks at them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.evaluation.report.EXAMPLES_PER_KIND", 1)
