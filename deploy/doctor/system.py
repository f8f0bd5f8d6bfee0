"""What the system gives the server: ports, shared memory, and room on disks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.doctor.check import Check, mebibytes, missing, refused, warning
from deploy.doctor.needs import Needs
from deploy.errors import PortError
from deploy.ports import Ports, claim_ports, host_address
from deploy.repository import walk
from deploy.server_options import SHM_BYTES

SHARED_MEMORY = Path("/dev/shm")
LOW_DISK_BYTES = 1 << 30
ANOTHER_LOG = "or give another with --log."
LABELS = {"http": "HTTP port", "grpc": "gRPC port", "metrics": "metrics port"}


def check_ports(host: str, ports: Ports) -> Sequence[Check]:
    """Whether each port can be listened on, by listening on it for a moment."""
    try:
        address = host_address(host)
    except PortError as error:
        return [refused("host", error)]
    checks = [_check_port(service, address, port) for service, port in asdict(ports).items()]
    if all(not check.remedy for check in checks):
        try:
            claim_ports(address, ports)
        except PortError as error:  # two services with one port
            return [*checks, refused("ports", error)]
    return checks


def _check_port(service: str, address: str, port: int) -> Check:
    name = LABELS[service]
    if port == 0:
        return Check(name, "a free one will be picked")
    try:
        claim_ports(address, Ports(**{service: port}))
    except PortError as error:
        return refused(name, error)
    return Check(name, f"{port} of {address} is free")


def check_shared_memory(needs: Needs, folder: Path = SHARED_MEMORY) -> Check:
    """Whether shared memory has room for a region of every Python process, and for each to grow once.

    A region begins with 4 MiB and grows by as much when a batch asks for it.
    """
    name = str(folder)
    remedy = (
        f"Give the container --shm-size 1g, or enlarge it with `mount -o remount,size=1g {folder}`; "
        "what ended servers have left is astmfr_* in there."
    )
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        found = "this user cannot write there" if folder.is_dir() else "there is none"
        return missing(name, found, f"Mount it with `mount -t tmpfs -o mode=1777,size=1g none {folder}`.")
    free = free_bytes(folder)
    least = needs.python_instances * SHM_BYTES
    found = _room(free)
    if least:
        found += f"; the server starts with {mebibytes(least)} ({needs.python_instances} processes)"
    if free < least:
        return missing(name, found, remedy)
    if free < 2 * least:
        return warning(name, f"{found}, and large batches need more", remedy)
    return Check(name, found)


def check_disk(repository: Path) -> Check:
    """Whether the next release has room beside those that are there. Serving itself writes nothing there."""
    name = "disk"
    existing = nearest(repository)
    free = free_bytes(existing)
    used = sum(path.stat().st_size for path in walk(repository) if path.is_file())
    found = f"{_room(free)} where {repository} lies, which has {mebibytes(used)}"
    if free < LOW_DISK_BYTES:
        return warning(name, found, "Make room before you publish again.")
    return Check(name, found)


def check_log(log: Path) -> Check:
    """Whether the server's log can be written; without it the server is not started."""
    try:
        return _judge_log(log)
    except PermissionError:  # of a folder above it
        return missing(
            "log", f"{log} cannot be reached by this user", f"Let this user enter its folder, {ANOTHER_LOG}"
        )


def _judge_log(log: Path) -> Check:
    name = "log"
    if log.exists() and not log.is_file():
        return missing(name, f"{log} is no file", "Give a file with --log.")
    existing = nearest(log)
    if existing.is_file() and existing != log:
        return missing(
            name, f"{existing}, a file, is where the folder of {log} should be", f"Move it, {ANOTHER_LOG}"
        )
    if not os.access(existing, os.W_OK | (os.X_OK if existing.is_dir() else 0), effective_ids=True):
        writable = f"Let this user write to {existing}, or mount it writable, {ANOTHER_LOG}"
        return missing(name, f"{existing} cannot be written by this user", writable)
    free = free_bytes(existing)
    if free == 0:
        return missing(name, f"the disk of {log} is full", f"Make room, {ANOTHER_LOG}")
    found = f"{log} can be written; {_room(free)}"
    return warning(name, found, f"Make room, {ANOTHER_LOG}") if free < LOW_DISK_BYTES else Check(name, found)


def free_bytes(folder: Path) -> float:
    """Bytes that this user may still write to a file system: none without an inode, no end where none is set."""
    room = os.statvfs(folder)
    if room.f_blocks == 0:
        return math.inf
    return room.f_bavail * room.f_frsize if room.f_favail or not room.f_files else 0


def _room(free: float) -> str:
    return "no limit of room is set" if math.isinf(free) else f"{mebibytes(free)} free"


def nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that exists."""
    absolute = path.absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())
