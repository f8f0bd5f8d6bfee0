"""Which servers of this machine serve a repository: each holds a lock on a file that names its endpoint.

`deploy` announces a server; publishing asks, so as not to make a release live that no probe has seen. The lock ends
with its process, however that ends. Servers in containers and on other machines are not known here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def announced(repository: Path, url: str) -> Iterator[None]:
    """Say that a server at `url` (gRPC, host:port) serves a repository, for the length of a `with` block."""
    path = _folder() / f"{_key(repository)}-{os.getpid()}-{url.rpartition(':')[2]}"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError:  # no room: nobody is told, and the server serves
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(url)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running(repository: Path) -> list[str]:
    """The endpoints (gRPC, host:port) of the servers that serve a repository; files of dead ones are removed."""
    urls = []
    for path in sorted(_folder().glob(f"{_key(repository)}-*")):
        with suppress(OSError), path.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                urls.append(file.read())
            else:
                path.unlink(missing_ok=True)
    return [url for url in urls if url]


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"astmfr-servers-{os.getuid()}"


def _key(repository: Path) -> str:
    return hashlib.sha256(str(repository.resolve()).encode()).hexdigest()[:16]
