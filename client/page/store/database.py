"""The database's file: opened for one page at a time, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from client.files import StorageError, require_writable_folder, storage_errors
from client.page.store.schema import TABLES, VERSION

BUSY_S = 10.0  # to wait for who else looks into the file
PACKED = "marks-"  # begins the names of folders in which a training set is packed
REMEDY = "make room there or choose another folder with --data"


class Rows(list[sqlite3.Row]):
    """What a query found."""

    @property
    def first(self) -> sqlite3.Row | None:
        """The first row; None where nothing was found."""
        return self[0] if self else None


class Database:
    """The page's database in its data folder; threads may share it.

    Attributes:
        folder: holds it, and the pictures.
        pictures: the folder of the picture files.
    """

    def __init__(self, folder: Path) -> None:
        """Open it, or make it.

        Raises:
            StorageError: another page uses the folder, nothing can be written there, or the file is none of ours.
        """
        require_writable_folder(folder)
        self.folder, self.pictures = folder, folder / "pictures"
        with storage_errors(folder):
            self.pictures.mkdir(parents=True, exist_ok=True)
            self._lock_file = (folder / "page.lock").open("ab")
        self._path = folder / "page.sqlite"
        self._writing = threading.RLock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        try:
            self._claim()
            for left_over in folder.glob(f"{PACKED}*"):  # a page that was killed while it packed
                shutil.rmtree(left_over, ignore_errors=True)
            self._writer = self._open()
        except BaseException:
            self._lock_file.close()
            raise

    def close(self) -> None:
        """Close all connections, and let another page use the folder."""
        with self._writing:
            for connection in (*self._readers, self._writer):
                connection.close()
        self._lock_file.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction, flushed to disk at its end; where the block raises, nothing of it remains.

        Raises:
            StorageError: a full disk, say.
        """
        with self._writing, self._storage_errors(), self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer

    def read(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """The rows that a query finds, over this thread's connection for reading.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._storage_errors("read"):
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
                self._local.connection = connection
                with self._writing:
                    self._readers.append(connection)
            return Rows(connection.execute(query, values).fetchall())

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{self.folder} is in use by another page; open that one in a browser, or give this one a folder of "
                "its own with --data."
            ) from None

    def _open(self) -> sqlite3.Connection:
        with self._storage_errors():
            connection = self._connect()
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
            except sqlite3.DatabaseError as error:
                connection.close()
                raise StorageError(
                    f"{self._path} is not the page's database ({error}); give another folder with --data."
                ) from None
            if version > VERSION:
                connection.close()
                raise StorageError(
                    f"{self._path} is of version {version}, and this program knows {VERSION}; use the newer program "
                    "that wrote it."
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what is shown as judged survives a power cut
            if version == 0:
                connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT;")
        self._path.chmod(0o600)
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        return connection

    @contextlib.contextmanager
    def _storage_errors(self, done: str = "written") -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a fault of this program
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self._path} cannot be {done} ({error}); {REMEDY}.") from None
