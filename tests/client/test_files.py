from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client.files import (
    StorageError,
    replace_file,
    require_writable_file,
    require_writable_folder,
    write_text,
)


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


def test_a_device_stays_one() -> None:
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(StorageError, match=r"/dev/full cannot be written \(No space left on device\)"):
        write_text(Path("/dev/full"), "x")
    assert Path("/dev/full").is_char_device()


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a.txt")
    write_text(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a.txt").read_text() == "one"


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".html")
    write_text(path, "one")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "€ f\udcfcr")
    assert (tmp_path / "a.txt").read_bytes() == "€ f".encode() + rb"\udcfc" + b"r"


def test_nothing_is_left_behind_by_a_check(tmp_path: Path) -> None:
    require_writable_file(tmp_path / "new" / "a.txt")
    require_writable_folder(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("check", [require_writable_file, require_writable_folder])
def test_a_disk_that_takes_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], None]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match=r"new/a cannot be written \(Read-only file system\)"):
        check(tmp_path / "new" / "a")
