"""All that a publisher changes comes about, or nothing; and one publishes at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from export.errors import PublishError
from export.releases.lock import LOCK_FILE, publishing_alone
from tests.conftest import CATEGORY
from tests.export.releases.conftest import (
    TEACHER,
    contents,
    loaded,
    publish,
    teacher_of,
    with_another_teacher,
)


def test_a_second_publisher_waits(pill: Path, repository: Path) -> None:
    publishing = threading.Event()
    with publishing_alone(repository), ThreadPoolExecutor(1) as pool:
        said = pool.submit(publish, pill, repository)
        assert not publishing.wait(0.5)
        assert not (repository / CATEGORY).exists()
        assert not said.done()
        holder = (repository / LOCK_FILE).read_text()
        (repository / LOCK_FILE).unlink()  # as the holder does when it is done
        assert said.result(timeout=60).startswith("Published")
    assert json.loads(holder)["pid"] == os.getpid()
    assert not (repository / LOCK_FILE).exists()


def test_who_publishes_is_told(pill: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "line-7")
    before = contents(repository)
    sentence = (
        r"models is being published into by process \d+ on line-7, since 20\S+, which was waited for 0\.2 s"
    )
    with (
        publishing_alone(repository),
        pytest.raises(PublishError, match=sentence),
        publishing_alone(repository, wait_s=0.2),
    ):
        pytest.fail("two publishers at once")
    assert contents(repository) == before


def test_publishers_at_once_lose_nothing(pill: Path, repository: Path, tmp_path: Path) -> None:
    """Each brings a teacher of its own bytes: whoever is last has all of them loaded, the first one's too."""
    publish(pill, repository)
    builds = [
        with_another_teacher(pill, tmp_path / "builds" / f"part{number}", str(number)) for number in range(4)
    ]
    with ThreadPoolExecutor(len(builds)) as pool:
        list(pool.map(lambda build: publish(build, repository), builds))
    versions = {teacher_of(repository, name) for name in ("pill", *(build.name for build in builds))}
    assert versions == {1, 2, 3, 4, 5} == set(loaded(repository, TEACHER))


class Disk:
    """Lets `left` calls of a function through; then it is full, or one call fails and the next ones do not."""

    def __init__(self, function: Callable[..., Any], *, left: int, stays_full: bool) -> None:
        self.function, self.left, self.stays_full, self.failed = function, left, stays_full, False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == -1 or (self.left < 0 and self.stays_full):
            self.failed = True
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.function(*arguments, **options)


@pytest.mark.parametrize(
    ("owner", "name", "stays_full"),
    [
        (Path, "rename", False),
        (Path, "mkdir", False),
        (Path, "write_bytes", True),
        (shutil, "copyfile", True),
        (os, "fsync", True),
    ],
)
def test_a_full_disk_leaves_the_repository_as_it_was(
    pill: Path,
    nut: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    stays_full: bool,
) -> None:
    """Whichever write fails, the first, the second or the last."""
    publish(pill, repository)
    (repository / "image_decoder" / "image_decoding.py").write_text("# of a later release\n")
    before = contents(repository)
    for left in range(100):
        disk = Disk(getattr(owner, name), left=left, stays_full=stays_full)
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, lambda *arguments, disk=disk, **options: disk(*arguments, **options))
            if publishes(nut, repository):
                break
        assert disk.failed
        assert contents(repository) == before
    assert left > 1
    assert not disk.failed
    assert teacher_of(repository, "nut") == 1


def publishes(build: Path, repository: Path) -> bool:
    """Whether a build can be published; a disk that is full is told in one sentence."""
    try:
        publish(build, repository, instances=3)  # of the shared teacher too, whose configuration is replaced
    except PublishError as error:
        if "models cannot be written (No space left on device) and stays as it was" not in error.message:
            raise
        return False
    return True


def test_what_a_killed_publisher_left_is_swept(pill: Path, repository: Path) -> None:
    (repository / ".publish-killed" / "0").mkdir(parents=True)
    (repository / LOCK_FILE).write_text("process 1 on a host that is gone")
    publish(pill, repository)
    assert [path.name for path in repository.iterdir() if path.name.startswith(".")] == [".releases"]


@pytest.mark.parametrize("number", [13, 30])
def test_a_repository_that_cannot_be_written_is_told(
    pill: Path, repository: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, before = Path.open, contents(repository)

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == LOCK_FILE:
            raise OSError(number, "Read-only file system")
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        PublishError, match=r"models cannot be written \(Read-only file system\).*--repository\.$"
    ):
        publish(pill, repository)
    monkeypatch.undo()
    assert contents(repository) == before
