from __future__ import annotations

from pathlib import Path

import pytest

from client.files import StorageError, replace_file, write_text


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "a.txt", "one")
    write_text(tmp_path / "new" / "deep" / "a.txt", "two")
    assert {path.name: path.read_text() for path in (tmp_path / "new" / "deep").iterdir()} == {"a.txt": "two"}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway(temporary: Path) -> None:
        temporary.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(StorageError, match=r"a\.txt cannot be written \(disk full\)"):
        replace_file(path, fail_halfway)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"a.txt": "old"}
