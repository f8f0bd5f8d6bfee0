"""The folder of a preview: whose it is, where it lies, and that it goes."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from deploy.errors import RepositoryError
from deploy.preview.scratch import PREFIX, UNLOCKED_S, scratch_folder, sweep


def test_it_lies_beside_the_repository_and_goes_at_the_end(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    with scratch_folder(repository) as folder, scratch_folder(repository) as other:
        assert folder.parent.parent == tmp_path
        assert folder.parent != other.parent
        assert sweep(tmp_path) == []  # both have an owner
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_one_whose_owner_was_killed_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    (left / "model_repository").mkdir(parents=True)
    (left / "lock").touch()  # nobody holds it
    made = tmp_path / f"{PREFIX}made"  # by another preview, which has not locked it yet
    made.mkdir()
    with scratch_folder(tmp_path / "models"):
        assert not left.exists()
        assert made.exists()
    long_ago = time.time() - 2 * UNLOCKED_S
    os.utime(made, (long_ago, long_ago))
    assert sweep(tmp_path) == [made]


def test_where_the_repository_cannot_be_written_beside_another_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced, temporary = tmp_path / "a b", tmp_path / "tmp"
    spaced.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with scratch_folder(spaced / "models") as folder:  # Triton takes no path with a space
        assert folder.is_relative_to(temporary)
    with scratch_folder(tmp_path / "gone" / "models") as folder:
        assert folder.is_relative_to(temporary)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(RepositoryError, match="there is no place for a preview"),
        scratch_folder(tmp_path / "gone" / "models"),
    ):
        pass
