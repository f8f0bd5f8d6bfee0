"""Room in /dev/shm for the Python steps, and what servers that were killed have left there."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from deploy.doctor.needs import count_instances
from deploy.errors import ServerError
from deploy.repository import read_config
from deploy.server_options import SHM_BYTES

SHARED_MEMORY = Path("/dev/shm")
LOCK = "lock"
BACKEND = re.compile(r'^backend: "python"$', re.MULTILINE)
MAX_BATCH = re.compile(r"^max_batch_size: (\d+)$", re.MULTILINE)
TENSOR = re.compile(r"^(?:input|output) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"astmfr_[0-9a-f]{8}_")
MUCH = 64 << 20  # bytes beyond full batches; a region that is smaller troubles nobody


class Regions:
    """The names in /dev/shm that are one server's, told by their first letters.

    A lock on a file among them says that the server's owner lives, also to other containers that share the folder.

    Attributes:
        prefix: what their names begin with.
    """

    def __init__(self, folder: Path = SHARED_MEMORY) -> None:
        """Choose a prefix that nobody has."""
        self.prefix = f"astmfr_{secrets.token_hex(4)}_"
        self._folder = folder
        self._lock: int | None = None

    def lock(self) -> None:
        """Say that they have an owner, where the folder can be written."""
        # Locked before it has its name: nobody finds it unlocked.
        unnamed, named = (self._folder / f"{dot}{self.prefix}{LOCK}" for dot in (".", ""))
        try:
            self._lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            unnamed.rename(named)
        except OSError:  # no room, or no such folder: the server will say so
            with contextlib.suppress(OSError):
                unnamed.unlink()

    def free(self) -> None:
        """Remove them all, once the server has ended."""
        with contextlib.suppress(
            OSError
        ):  # no descriptors are left, say: the next start's sweep removes them
            _remove(self._folder, self.prefix)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def region_bytes(repository: Path, models: Iterable[str]) -> tuple[int, int]:
    """What the processes of the Python steps among `models` take of shared memory: at the start, and with full batches.

    A process begins with SHM_BYTES and grows by as much at a time. Tensors whose shape no configuration states are left
    out.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    first = full = 0
    for model in models:
        config = read_config(repository / model / "config.pbtxt")
        if BACKEND.search(config) is None:
            continue
        batch = max(1, *map(int, MAX_BATCH.findall(config)), 1)
        tensors = sum(map(_tensor_bytes, TENSOR.findall(config)))
        instances = count_instances(config)
        first += instances * SHM_BYTES
        full += instances * SHM_BYTES * (1 + math.ceil(batch * tensors / SHM_BYTES))
    return first, full


def require_shared_memory(repository: Path, models: Iterable[str], folder: Path = SHARED_MEMORY) -> None:
    """Make sure that the Python steps find room for what they begin with.

    Raises:
        RepositoryError: a configuration cannot be read.
        ServerError: there is too little; says how much is needed.
    """
    first, full = region_bytes(repository, models)
    if not first:
        return
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise ServerError(
            f"{folder} cannot be used ({error.strerror}), and the Python steps need {_mib(full)} there; mount it with "
            f"`mount -t tmpfs -o mode=1777,size={_mib(full, 'm')} none {folder}`."
        ) from None
    free = room.f_bavail * room.f_frsize
    if free < first:
        size = full + room.f_blocks * room.f_frsize - free
        raise ServerError(
            f"{folder} has {_mib(free)} free, and the Python steps begin with {_mib(first)} and take {_mib(full)} with "
            f"full batches; give the container --shm-size={_mib(size, 'm')}, or enlarge it with "
            f"`mount -o remount,size={_mib(size, 'm')} {folder}`."
        )


def large_regions(folder: Path = SHARED_MEMORY) -> dict[str, int]:
    """Bytes of every region of a server that is larger than MUCH, by its path."""
    found = {}
    for region in folder.glob("astmfr_*"):
        with contextlib.suppress(OSError):  # just removed
            if (size := region.stat().st_size) > MUCH:
                found[str(region)] = size
    return found


def mapped(pid: int, regions: dict[str, int]) -> int:
    """Bytes of the regions that a process has in its address space; 0 of one that is gone."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "astmfr_" in line}
    return sum(size for path, size in regions.items() if path in paths)


def _tensor_bytes(fields: str) -> int:
    """Bytes of a tensor for one image; 0 where its shape is not stated."""
    data_type = re.search(r"data_type: TYPE_(\w+)", fields)
    dims = [int(size) for size in re.findall(r"dims: (-?\d+)", fields)]
    if data_type is None or not dims or min(dims) < 1:
        return 0
    bits = re.search(r"\d+", data_type[1])  # FP32, UINT8; BOOL has a byte
    return math.prod(dims) * (int(bits[0]) // 8 if bits else 1)


def _mib(n_bytes: int, unit: str = " MiB") -> str:
    return f"{math.ceil(n_bytes / 2**20)}{unit}"


def sweep(folder: Path = SHARED_MEMORY) -> int:
    """Remove what servers have left whose owner was killed; returns its bytes."""
    freed = 0
    for path in folder.glob(f"astmfr_*_{LOCK}"):
        prefix = path.name.removesuffix(LOCK)
        if not NAME.fullmatch(prefix):
            continue
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # another user's, or just gone
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            freed += _remove(folder, prefix)
        except OSError:  # its owner lives
            continue
        finally:
            os.close(lock)
    return freed


def _remove(folder: Path, prefix: str) -> int:
    n_bytes = 0
    # The lock last: what is left when this is interrupted is found again.
    for region in sorted(folder.glob(f"{prefix}*"), key=lambda region: region.name == prefix + LOCK):
        try:
            n_bytes += region.stat().st_size
            region.unlink()
        except OSError:  # another has removed it
            continue
    return n_bytes
