"""A SQLite file that outlives its writer: opened in WAL mode, its faults in one sentence."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from client.files import StorageError
from client.watching.filesystems import network_of

BUSY_S = 30.0
# After these, the same may succeed later: the disk is full, away for a while, or another one is writing.
PASSING = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_BUSY",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "SQLITE_LOCKED",
)


class JournalError(StorageError):
    """A journal cannot be read or written.

    Attributes:
        may_pass: whether the same may succeed later.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def connect(path: Path, *, read_only: bool = False, durable: bool = True) -> sqlite3.Connection:
    """Open a database; it is made unless it is only read.

    Args:
        path: the file, on a disk of this machine.
        read_only: nothing is written.
        durable: what is written is on the disk at the end of each transaction, and not lost with the power.

    Raises:
        JournalError: it cannot be opened, or it is something else.
    """
    if read_only and not path.exists():
        raise JournalError(f"{path} does not exist; `python -m client watch` makes it.")
    if not read_only:
        _require_own_disk(path)
    with journal_errors(path):
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if not read_only:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            database.execute("SELECT count(*) FROM sqlite_schema")
        except BaseException:
            database.close()
            raise
    return database


@contextlib.contextmanager
def transaction(
    database: sqlite3.Connection, path: Path, *, writes: bool = True
) -> Iterator[sqlite3.Connection]:
    """All of the block or nothing of it.

    Raises:
        JournalError: it could not be read or written.
    """
    with journal_errors(path):
        database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Name SQLite's and the system's errors.

    Raises:
        JournalError: one of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise JournalError(
                f"{path} is no journal, or a damaged one ({error}); give another file with --journal, or move it away: "
                "what lies in the folder is then judged again."
            ) from None
        raise JournalError(
            f"The journal {path} cannot be used ({error}); make room there, or choose another place with --journal.",
            may_pass=name.startswith(PASSING),
        ) from None
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be used ({error.strerror or error}); choose another place with --journal.",
            may_pass=True,
        ) from None


def patiently(write: Callable[[], Any], *, wait: Callable[[JournalError], bool]) -> bool:
    """Write until it succeeds; `wait` is told what failed, and says whether to try again.

    Returns:
        Whether it was written.

    Raises:
        JournalError: waiting does not help.
    """
    while True:
        try:
            write()
        except JournalError as error:
            if not error.may_pass:
                raise
            if not wait(error):
                return False
        else:
            return True


def _require_own_disk(path: Path) -> None:
    if network := network_of(path.absolute().parent):
        raise JournalError(
            f"{path} would lie on a network's disk ({network}), where SQLite is not safe; give a file on a disk of "
            "this machine with --journal."
        )
