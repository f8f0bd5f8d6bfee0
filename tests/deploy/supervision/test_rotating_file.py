from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from deploy.supervision import rotating_file
from deploy.supervision.log_pump import LogPump
from deploy.supervision.rotating_file import RotatingFile


def test_a_full_file_is_kept_under_a_number(tmp_path: Path) -> None:
    log = RotatingFile(tmp_path / "logs" / "log", max_bytes=10, keep=2)
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight"):
        log.write(f"{word}word\n".encode())
    log.close()
    files = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert files == {
        "log": "eightword\n",
        "log.1": "sixword\nsevenword\n",
        "log.2": "fourword\nfiveword\n",
    }


def test_a_file_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    log = RotatingFile(tmp_path / "log", max_bytes=100, keep=1)
    log.write(b"one\n")
    (tmp_path / "log").unlink()
    log.write(b"two\n")
    log.close()
    assert (tmp_path / "log").read_text() == "two\n"


def test_what_a_full_disk_does_not_take_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RotatingFile(tmp_path / "log", max_bytes=100, keep=1)
    log.write(b"one\n")

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(rotating_file.os, "write", full)
        log.write(b"two\nthree\n")
        log.write(b"four\n")
        assert (log.dropped, log.fault) == (3, "No space left on device")
    log.write(b"five\n")
    log.close()
    assert (tmp_path / "log").read_text() == (
        "one\n=== 3 lines are missing here: No space left on device\nfive\n"
    )


def test_the_output_of_a_process_is_carried_to_its_end(tmp_path: Path) -> None:
    pump = LogPump(RotatingFile(tmp_path / "log", max_bytes=50_000, keep=99))
    numbers = subprocess.Popen(["seq", "100000"], stdout=pump.write_end)
    pump.close_write_end()
    assert numbers.wait() == 0
    pump.join()
    files = sorted(tmp_path.iterdir(), key=os.path.getmtime)
    assert len(files) > 2
    assert sum(path.read_text().count("\n") for path in files) == 100_000
    assert pump.text() == "".join(f"{number}\n" for number in range(1, 100_001))
