"""A picture file as it lies in the watched folder, and what tells it from another one of the same name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

DIGEST_BYTES = 16
SECOND_NS = 1_000_000_000
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
        ctime_ns: when anything of it was changed last, its name included, nanoseconds since 1970. What is written over
            it may have its size and `mtime_ns`, and not this one. Two arrivals that differ in it alone are equal.
    """

    name: Path
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = field(default=0, compare=False)

    @classmethod
    def of(cls, name: Path, status: os.stat_result) -> Arrival:
        """A file of that name, as `stat` saw it."""
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    @property
    def is_coarse(self) -> bool:
        """Whether its file system has times of whole seconds, so that they do not tell what was written over it."""
        return self.mtime_ns % SECOND_NS == 0 and self.ctime_ns % SECOND_NS == 0

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
