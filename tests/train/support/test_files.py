"""Files and folders are written whole or not at all, and what stands in the way is told in one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.errors import StorageError
from train.support.files import read_json, replacing, replacing_folder, require_writable, write_json

ROOT = Path(__file__).resolve().parents[3]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 300) / "file"
    for write in (lambda: write_json(path, 1), lambda: require_writable(path.parent)):
        with pytest.raises(
            StorageError, match=r"cannot be written \(File name too long.*\); make room or choose"
        ):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    with (
        pytest.raises(
            StorageError, match=r"target cannot be written \(No space left .*what stood there stays"
        ),
        replacing_folder(target) as new,
    ):
        full((new / "half").touch())
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    original = Path.rename

    def rename(self: Path, to: Path) -> Path:
        return original(self, to) if self.name != "new" else full()  # type: ignore[func-returns-value, return-value]

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="No space left on device"), replacing_folder(target):
        pass
    assert [path.name for path in target.iterdir()] == ["old"]


def test_another_files_fault_is_named(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "source.png"
    with (
        pytest.raises(StorageError, match=rf"\(No such file or directory: {source}\)"),
        replacing(tmp_path / "target"),
    ):
        source.read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_a_json_file_that_cannot_be_read_is_not_taken_for_missing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(StorageError, match=r"folder\.json cannot be read \(Is a directory\)"):
        read_json(tmp_path / "folder.json")


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from train.support.files import write_text; "
        "write_text(pathlib.Path(sys.argv[1]), '\\xe9')"
    )
    subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, str(tmp_path / "text")],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        check=True,
    )
    assert (tmp_path / "text").read_bytes() == "é".encode()
