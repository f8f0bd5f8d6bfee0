"""How much memory this process may still take: the machine's, or less where a container has a limit."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_memory(*, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Bytes that can be had: what the machine has free, or what a limit leaves, whichever is less.

    Limits are those of control groups (version 1 and 2), as Docker and Kubernetes set them.

    Args:
        cgroups: where they are mounted.
        own: the file that tells which this process is in.
    """
    left = [_left_under_limit(folder, version) for folder, version in _own_groups(cgroups, own)]
    return min([psutil.virtual_memory().available, *(n_bytes for n_bytes in left if n_bytes is not None)])


def _own_groups(cgroups: Path, own: Path) -> list[tuple[Path, int]]:
    """This process's groups and those around them, with the version of each; every one's limit counts."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, version = (cgroups / "memory", 1) if controllers else (cgroups, 2)
        inside = PurePosixPath(path.lstrip("/"))  # in a container often a path that only the host has
        groups += [(root / group, version) for group in (inside, *inside.parents)]
    return groups


def _left_under_limit(folder: Path, version: int) -> int | None:
    """Bytes that a group's limit leaves; None where it has none. Cached files make room when asked to."""
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
    try:
        limit, used = ((folder / name).read_text(encoding="utf-8").strip() for name in names[version])
        statistics = (folder / "memory.stat").read_text(encoding="utf-8").split()
    except OSError:
        return None
    if limit == "max":
        return None
    cached = dict(zip(statistics[::2], statistics[1::2], strict=False))
    name = {1: "total_inactive_file", 2: "inactive_file"}[version]
    return max(0, int(limit) - int(used) + int(cached.get(name, 0)))
