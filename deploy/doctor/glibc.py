"""The C library: what this machine has, and what the server's files ask for."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.doctor.check import Check, missing, not_known
from deploy.doctor.software import Server
from deploy.errors import InstallationError

WHEEL_GLIBC = (2, 35)  # of nvidia-pytriton 0.7.0: pip installs it on no older one
GLIBC_VERSION = re.compile(rb"\0GLIBC_(\d+)\.(\d+)\0")


def check_glibc(server: Server | InstallationError) -> Check:
    """Whether the C library is as new as the server's files ask; they name the versions of the functions they call."""
    try:
        tell = ctypes.CDLL(None).gnu_get_libc_version
    except AttributeError:
        remedy = "Serve on Debian, Ubuntu or another system with glibc, or in NVIDIA's container."
        return missing("glibc", "this system's C library is not glibc", remedy)
    tell.restype = ctypes.c_char_p
    needed = WHEEL_GLIBC if isinstance(server, InstallationError) else needed_glibc(server_files(server))
    return judge_glibc(tell().decode(), needed)


def judge_glibc(version: str, needed: tuple[int, int] | None) -> Check:
    """What a version means for a server that needs another one or a later."""
    if needed is None:
        return not_known("glibc", f"{version} is here, and the server's files do not say which they need")
    found = f"{version}; the server needs {shown(needed)} or later"
    if tuple(map(int, version.split(".")[:2])) < needed:
        remedy = "Serve on a newer system, Debian 12 or Ubuntu 22.04 say, or in NVIDIA's container."
        return missing("glibc", found, remedy)
    return Check("glibc", found)


def server_files(server: Server) -> Iterator[Path]:
    """The server's program, the stub, its Python backend and its own library."""
    yield from (server.binary, server.stub)
    yield from (server.backends / "python").glob("*.so")
    root = server.backends.parent
    yield from (root / "lib").glob("libtritonserver*.so")
    yield from (root.parents[1] / "nvidia_pytriton.libs").glob("libtritonserver*.so")


def needed_glibc(files: Iterable[Path]) -> tuple[int, int] | None:
    """The newest version of glibc that one of the files names; None where none names any."""
    named: set[tuple[int, int]] = set()
    for path in files:
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                named |= {(int(major), int(minor)) for major, minor in GLIBC_VERSION.findall(content)}
    return max(named, default=None)


def shown(version: tuple[int, int]) -> str:
    """`2.34`."""
    return ".".join(map(str, version))
