"""Reports have no pictures here: they are many, and tests/train/evaluation looks at them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _without_pictures(without_pictures: None) -> None:
    """In all tests of studies."""
