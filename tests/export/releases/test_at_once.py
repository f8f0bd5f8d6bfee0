"""Two publishers at once, a full disk, and a repository that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from export.errors import PublishError
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import require_whole
from export.releases.verbs.bundle import bundle_release, import_bundle
from export.releases.verbs.promote import promote
from export.releases.verbs.prune import prune
from tests.conftest import CATEGORY
from tests.export.releases.conftest import (
    TEACHER,
    contents,
    loaded,
    publish,
    teacher_of,
    with_another_teacher,
)
from tests.export.releases.test_verbs import publish_aside

TIMES = int(os.environ.get("PUBLISHERS_AT_ONCE", "4"))  # 50 by hand


@pytest.mark.parametrize("time", range(TIMES))
def test_two_categories_over_one_teacher_at_once(pill: Path, nut: Path, repository: Path, time: int) -> None:
    builds = (pill, nut) if time % 2 else (nut, pill)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda build: publish(build, repository), builds))
    assert all(line.startswith("Published") for line in said)
    assert {teacher_of(repository, "pill"), teacher_of(repository, "nut")} == {1}
    assert loaded(repository, TEACHER) == [1]
    assert Store(repository).next_serial() == 3
    for category in (CATEGORY, "nut"):
        require_whole(Repository(repository), Store(repository).read(category, 1))
    assert [path.name for path in repository.iterdir() if path.name.startswith(".")] == [".releases"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts small file systems in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folders: list[Path] = []

    def mount(name: str, *, size: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        options = ["-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this machine lets nobody mount")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def size_of(folder: Path) -> int:
    """Bytes that a file system of pages needs for a folder."""
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


@pytest.fixture
def commands(pill: Path, nut: Path, repository: Path, tmp_path: Path) -> dict[str, Callable[[Path], Any]]:
    """Commands that write, about a repository with two releases of pill."""
    publish(pill, repository)
    other = shutil.copytree(repository, tmp_path / "other")
    publish_aside(with_another_teacher(pill, tmp_path / "second" / CATEGORY, "second"), repository)
    publish(nut, other)
    bundle_release(other, "nut", 1, tmp_path / "nut.bundle")
    return {
        "publish": lambda root: publish(with_another(pill, tmp_path), root),
        "import": lambda root: import_bundle(root, tmp_path / "nut.bundle"),
        "promote": lambda root: promote(root, CATEGORY, 2),
        "prune": lambda root: prune(root, 1, apply=True),
    }


def with_another(pill: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "third", ignore_errors=True)
    return with_another_teacher(pill, tmp_path / "third" / CATEGORY, "third")


def test_a_full_disk_is_told_and_the_old_release_stays(
    commands: dict[str, Callable[[Path], Any]], mounted: Callable[..., Path], repository: Path
) -> None:
    root = mounted("small", size=size_of(repository) + 2**24) / "models"
    shutil.copytree(repository, root)
    before, filler = contents(root), root.parent / "filler"
    for left in (0, 2**12, 2**14, 2**15):
        space = os.statvfs(root)
        filler.write_bytes(bytes(space.f_bavail * space.f_frsize - left))
        for name in ("publish", "import", *(["promote"] if left < 2**14 else [])):
            with pytest.raises(
                PublishError, match=r"models cannot be written \(No space left on device\)"
            ) as told:
                commands[name](root)
            assert "\n" not in told.value.message
            assert contents(root) == before
        filler.unlink()
    for command in commands.values():
        command(root)


@pytest.mark.parametrize("name", ["publish", "import", "promote", "prune"])
def test_a_read_only_repository_is_told_and_can_be_read(
    commands: dict[str, Callable[[Path], Any]],
    mounted: Callable[..., Path],
    repository: Path,
    tmp_path: Path,
    name: str,
) -> None:
    root = mounted("volume", size=2 * size_of(repository)) / "models"
    shutil.copytree(repository, root)
    subprocess.run(["mount", "-o", "remount,ro", str(root.parent)], check=True)
    before = contents(root)
    with pytest.raises(PublishError, match=r"models cannot be written \(Read-only file system\)") as told:
        commands[name](root)
    assert "\n" not in told.value.message
    assert contents(root) == before
    prune(root, 1)  # a dry run only reads, as packing does
    bundle_release(root, CATEGORY, 1, tmp_path / "pill.bundle")
