"""A container's limit counts, not the memory of the machine around it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from train.support.memory import available_memory

MIB = 1 << 20


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def version_2(limit: str, used: int, cached: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 1\ninactive_file {cached}\n",
    }


@pytest.fixture(autouse=True)
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        available = 1000 * MIB

    monkeypatch.setattr(psutil, "virtual_memory", Machine)


def available(tmp_path: Path, own: str) -> int:
    (tmp_path / "own").write_text(own)
    return available_memory(cgroups=tmp_path / "cgroup", own=tmp_path / "own")


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", version_2("max", 70 * MIB))
    assert available(tmp_path, "0::/\n") == 1000 * MIB
    assert available_memory(cgroups=tmp_path / "none", own=tmp_path / "none") == 1000 * MIB


def test_a_limit_of_version_2_counts_and_so_do_those_around_it(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root / "pod", version_2(str(200 * MIB), 150 * MIB, cached=20 * MIB))
    group(root / "pod" / "own", version_2(str(500 * MIB), 100 * MIB))
    assert available(tmp_path, "0::/pod/own\n") == 70 * MIB
    group(root, version_2(str(10 * MIB), 20 * MIB))  # used up
    assert available(tmp_path, "0::/pod/own\n") == 0


def test_a_limit_of_version_1_counts_under_a_path_that_only_the_host_has(tmp_path: Path) -> None:
    files = {
        "memory.limit_in_bytes": str(300 * MIB),
        "memory.usage_in_bytes": str(120 * MIB),
        "memory.stat": f"cache 7\ntotal_inactive_file {10 * MIB}\n",
    }
    group(tmp_path / "cgroup" / "memory", files)
    assert available(tmp_path, "4:memory:/docker/0a72\n3:cpuset:/\n0::/\n") == 190 * MIB
    group(tmp_path / "cgroup" / "memory", {"memory.limit_in_bytes": str(2**63 - 4096)})  # as none is written
    assert available(tmp_path, "4:memory:/docker/0a72\n") == 1000 * MIB
