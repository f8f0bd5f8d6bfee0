"""A picture file as it lies in the watched folder, and what tells it from another one of the same name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

DIGEST_BYTES = 16
GRABBED = ".astmfr-"  # begins the hidden name of a picture that is being moved


@dataclass(frozen=True)
class Arrival:
    """One file at one time: what is written over it, or lies under another name, is another picture.

    The inode alone tells nothing: a share that is mounted anew gives its files other ones. Where it differs, the
    content decides (`digest_of`).

    Attributes:
        name: path relative to the watched folder.
        size: bytes.
        mtime_ns: when its content was last written, nanoseconds since 1970, as the file system says.
        inode: the file system's number of it.
    """

    name: Path
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, name: Path, status: os.stat_result) -> Arrival:
        """A file of that name, as `stat` saw it."""
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ino)

    def is_still(self, path: Path) -> bool:
        """Whether the file at `path` is this one, unchanged."""
        try:
            status = path.stat(follow_symlinks=True)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def digest_of(content: bytes) -> bytes:
    """What tells a file's content from any other, DIGEST_BYTES bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
