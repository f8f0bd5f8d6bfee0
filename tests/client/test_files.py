from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client.files import (
    StorageError,
    lock_file,
    replace_file,
    require_writable_file,
    require_writable_folder,
    write_text,
)
from client.watching.locking import FolderLock, locked_file


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


def test_a_lock_names_its_holder_and_ends_with_its_file(tmp_path: Path) -> None:
    held = lock_file(tmp_path / "lock", str)
    with pytest.raises(StorageError, match=rf"^taken by process {os.getpid()} on "):
        lock_file(tmp_path / "lock", lambda holder: f"taken by {holder}")
    os.close(held)
    os.close(lock_file(tmp_path / "lock", str))


def test_a_file_system_without_locks_is_told_by_who_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(OSError, match="No locks available"):
        lock_file(tmp_path / "lock", str)
    with pytest.raises(StorageError, match=r"cannot be locked against a second watch .*No locks available\)"):
        FolderLock(tmp_path)
    with (
        pytest.raises(StorageError, match=r"journal.sqlite cannot be used \(No locks available\)"),
        locked_file(tmp_path / "journal.sqlite"),
    ):
        pass
