"""The folder beside the results in which the shards that are done lie, each a file that was renamed there whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from client.archiving.plan import Plan, Shard
from client.archiving.rows import read_metadata
from client.archiving.tally import Tally
from client.files import NAME_KEPT, StorageError, lock_file, replace_file, storage_errors

# Hidden, for the folder may lie among the images.
PLAN, LOCK = ".plan", ".lock"
SUFFIX = ".parts"
HALF_WRITTEN = re.compile(r"\.(\.plan|\d+\.parquet)\.\d+$")  # as `replace_file` names what it writes


class Parts:
    """The folder of an archive that is not complete.

    Attributes:
        folder: that of `results.parquet` is `results.parquet.parts`.
        damaged: shards whose file was not whole, and was removed.
    """

    def __init__(self, results: Path) -> None:
        """Nothing is created or changed yet."""
        self.results = results
        self.folder = results.with_name(results.name + SUFFIX)
        self.damaged: list[int] = []

    @property
    def plan(self) -> Path:
        """The file with the plan."""
        return self.folder / PLAN

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep others out of it for the length of a `with` block.

        Raises:
            StorageError: another process archives there, it holds something else, or it cannot be written.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [
                each
                for each in self.folder.iterdir()
                if each.name != LOCK and not HALF_WRITTEN.match(each.name)
            ]
            if others and not self.plan.exists():
                raise StorageError(
                    f"{self.folder} exists and holds no unfinished archive; move it away, or give another file with "
                    "--to."
                )
            file = lock_file(
                self.folder / LOCK,
                lambda holder: (
                    f"{self.results} is being written already, by {holder}; wait for it, or give another file with "
                    "--to."
                ),
            )
        try:
            with storage_errors(self.results):  # it may be a link to a folder that is not there
                self._sweep()
            yield
        finally:
            if not self.plan.exists():  # nothing was begun, or all is done
                self._remove_empty()
            os.close(file)

    def _sweep(self) -> None:
        """Remove what a run that was killed has half written."""
        results = Path(os.path.realpath(self.results))
        merged = re.compile(rf"\.{re.escape(results.name[:NAME_KEPT])}\.\d+$")
        for folder, half_written in ((self.folder, HALF_WRITTEN), (results.parent, merged)):
            for path in folder.iterdir():
                if half_written.match(path.name):
                    path.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder.rmdir()

    def path_of(self, shard: Shard) -> Path:
        """Where the rows of a shard lie once it is done."""
        return self.folder / f"{shard.number:06}.parquet"

    def tally_of(self, shard: Shard) -> Tally:
        """What was counted in a shard that is done."""
        return Tally.from_dict(read_metadata(self.path_of(shard))["tally"])

    def done(self, plan: Plan) -> dict[int, Tally]:
        """The shards that are done, by number, and what was counted in each.

        A file that is not whole or of other images is removed.

        Raises:
            StorageError: one cannot be read.
        """
        done = {}
        for shard in plan.shards:
            path = self.path_of(shard)
            with storage_errors(path):
                if not path.exists():
                    continue
                try:
                    metadata = read_metadata(path)
                    tally = Tally.from_dict(metadata["tally"])
                    if metadata["images"] != plan.digest_of(shard) or tally.images != shard.count:
                        raise ValueError("it is of other images")
                except (ValueError, KeyError, TypeError):
                    path.unlink()
                    self.damaged.append(shard.number)
                else:
                    done[shard.number] = tally
        return done

    def add(self, shard: Shard, content: bytes) -> None:
        """Keep the rows of a shard: it is done when this returns, and not before.

        Raises:
            StorageError: they cannot be written.
        """
        replace_file(self.path_of(shard), lambda temporary: temporary.write_bytes(content))

    def remove(self) -> None:
        """Remove the folder: all of it is in the results."""
        with storage_errors(self.folder):
            shutil.rmtree(self.folder)
