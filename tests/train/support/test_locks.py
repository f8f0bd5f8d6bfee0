"""One process at a time; the lock of a dead one counts for nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train.errors import RunError, StorageError
from train.support.locks import exclusive

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from train.support.locks import exclusive
with exclusive(Path(sys.argv[1]), work="trained"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "mono" / ".lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=rf"mono is being trained by process {holder.pid} on .+, since 20"),
            exclusive(lock, work="trained"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    assert lock.is_file()  # it could not remove it
    with exclusive(lock, work="trained"):
        assert str(os.getpid()) in lock.read_text()
    assert list(lock.parent.iterdir()) == []


def test_a_folder_that_was_made_for_the_lock_goes_with_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "runs" / "mono" / ".lock", work="trained"):
        pass
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_lock_that_was_removed_while_it_was_waited_for_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, attempts = tmp_path / ".lock", []
    real = fcntl.flock

    def flock(file: int, operation: int) -> None:
        attempts.append(file)
        if len(attempts) == 1:
            lock.unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(lock, work="trained"):
        assert len(attempts) == 2
        assert lock.is_file()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / ".lock", work="trained"):
        pass
    assert "file system without locks" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(StorageError, match=r"runs/mono cannot be written \(Not a directory"),
        exclusive(tmp_path / "runs" / "mono" / ".lock", work="trained"),
    ):
        pass


def test_a_full_disk_leaves_no_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("train.support.locks._write_owner", refuse)
    with pytest.raises(StorageError, match="No space left"), exclusive(tmp_path / ".lock", work="trained"):
        pytest.fail("the lock cannot be held")
    assert list(tmp_path.iterdir()) == []
