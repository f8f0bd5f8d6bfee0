"""The command group of the stage: a last net for what the file system or the terminal refuses."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import click

from train.errors import StorageError

# What a person can mend: a full or read-only disk, rights, names, a file in place of a folder, a broken disk.
FILE_FAULTS = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO,
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EMFILE, errno.ENFILE,
}  # fmt: skip


class Commands(click.Group):
    """Commands that end with one sentence where a file cannot be read or written, whoever tried it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; letters that the terminal does not have are shown by their numbers."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno not in FILE_FAULTS:
                raise
            raise StorageError(
                f"{error.filename or 'A file'} cannot be read or written ({error.strerror}); make room, or see to its "
                "permissions."
            ) from error
