"""The shared memory of a test's own clients; other processes have some of their own there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tritonclient.utils.shared_memory as shm


@pytest.fixture
def own_regions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of all regions that this test's clients have made, those that are gone among them."""
    create, files = shm.create_shared_memory_region, list[Path]()

    def create_and_note(name: str, key: str, size: int, create_only: bool) -> Any:
        files.append(Path("/dev/shm", key))
        return create(name, key, size, create_only=create_only)

    monkeypatch.setattr(shm, "create_shared_memory_region", create_and_note)
    return files
