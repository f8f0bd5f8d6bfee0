"""Temporary folders: one's own, and those of processes that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from train.support.temporary import temporary_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_this_users_alone_and_goes_with_the_block(place: Path) -> None:
    with temporary_folder("mine-") as folder:
        assert folder.parent == place
        assert folder.name.startswith(f"mine-{os.getpid()}-")
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (place / f"mine-{dead.pid}-abc" / "r").mkdir(parents=True)
    kept = {f"mine-{os.getppid()}-abc", f"other-{dead.pid}-abc", "mine-abc", "mine-x-1"}
    for name in kept:
        (place / name).mkdir()
    with temporary_folder("mine-"):
        assert {path.name for path in place.iterdir() if str(os.getpid()) not in path.name} == kept


def test_a_place_with_a_long_path_is_told_and_not_taken(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_folder("mine-", longest=11) as folder:
        assert folder.parent == Path("/tmp")
    assert f"go to /tmp, as the path {place} is too long" in " ".join(capsys.readouterr().err.split())
