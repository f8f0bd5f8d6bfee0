"""The new pictures of a folder, each once nothing is written to it any more.

The folder is read again and again (`os.scandir`), which works on every file system: a share (SMB, NFS) tells nobody of
files that another machine put there.
"""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from client.pictures.folders import COPIES
from client.watching.arrivals import GRABBED, Arrival
from client.watching.events import Events
from client.watching.filesystems import has_writer
from model_repository.image_decoder.image_decoding import SUFFIXES

COARSE_NS = (
    4_000_000_000  # in which what is written over a file may get the same time, where times are coarse
)
EMPTY_S = 5.0  # in which who has made a file has begun to write
LEFT_OUT_EVERY_S = 60.0  # at most one line on what is no image
ENDINGS_SHOWN = 5


@dataclass(frozen=True)
class _Seen:
    """A file at the last look; `since_s` is when it was first seen as it is, of `time.monotonic`."""

    size: int
    mtime_ns: int
    since_s: float


class DropFolder:
    """Looks into a folder and those in it, hidden ones aside.

    Attributes:
        folder: the folder.
        there: whether it was there at the last look.
        waiting: new files at the last look that were not yet whole.
        held: those of them that somebody has open for writing, and has not written to for `held_s`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settle_s: float,
        held_s: float,
        is_known: Callable[[Arrival], bool],
        now_ns: Callable[[], int] | None,
        leave_out: Collection[Path],
        events: Events,
    ) -> None:
        """Watch a folder.

        Args:
            folder: the folder.
            settle_s: seconds in which a file must not change before it counts as written.
            held_s: seconds after which a file that stays open for writing is told of.
            is_known: whether a picture was recorded; asked once a file.
            now_ns: the clock of the folder's file system; None where the times of files are not to be trusted, as on a
                share: there each file must be seen unchanged for `settle_s`.
            leave_out: folders in it that are not searched, for pictures are moved there.
            events: told what is left out, and when the folder is away.
        """
        self.folder, self._settle_s, self._now_ns, self._events = folder, settle_s, now_ns, events
        self._held_s = held_s
        self._is_known = is_known
        self._leave_out = {os.path.realpath(path) for path in leave_out}
        # Hashes of the files here about which the journal was asked.
        self._known: set[int] = set()
        self._new: set[int] = set()
        self._seen: dict[Path, _Seen] = {}
        self._left_out: Counter[str] = Counter()
        self._told_left_out: Counter[str] = Counter()
        self._tell_at_s = 0.0
        self._orphans = 0  # pictures that a lost journal was moving
        self.there = True
        self.waiting = 0
        self.held: list[Path] = []

    def ready(self, limit: int, *, busy: Collection[Arrival]) -> list[Arrival]:
        """The oldest new files that are whole, by their time; at most `limit`.

        Args:
            limit: how many.
            busy: files that are being judged, which are no longer new.
        """
        files = list(self._files())
        if not self.there:
            return []
        ready: list[Arrival] = []
        seen: dict[Path, _Seen] = {}
        known: set[int] = set()
        new: set[int] = set()
        clock_ns, now_s = 0, time.monotonic()
        self.held = []
        for name, status in files:
            mark = _mark(name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
            if mark in self._known:  # nearly all of them, in a folder whose pictures stay
                known.add(mark)
                continue
            arrival = Arrival.of(Path(name), status)
            if arrival in busy:
                continue
            if mark not in self._new and self._is_known(arrival):
                if not (arrival.is_coarse and abs(time.time_ns() - arrival.mtime_ns) < COARSE_NS):
                    known.add(mark)
                continue
            new.add(mark)
            if self._now_ns is not None:
                clock_ns = clock_ns or self._now_ns()
            if self._is_whole(status, arrival.name, seen, now_s=now_s, clock_ns=clock_ns):
                ready.append(arrival)
        self._known, self._new, self._seen, self.waiting = known, new, seen, len(seen)
        self._tell_left_out()
        self._tell_orphans()
        self._tell_held()
        return heapq.nsmallest(
            limit, ready, key=lambda arrival: (arrival.mtime_ns, os.fsencode(arrival.name))
        )

    def forget(self, arrival: Arrival) -> None:
        """Ask the journal again about a file: it was recorded, or moved."""
        mark = _mark(str(arrival.name), arrival.size, arrival.mtime_ns, arrival.inode, arrival.ctime_ns)
        self._known.discard(mark)
        self._new.discard(mark)

    def is_older(self, arrival: Arrival, seconds: float) -> bool:
        """Whether a file was written last so long ago, where the times of files are to be trusted."""
        return self._now_ns is not None and self._now_ns() - arrival.mtime_ns > 1e9 * seconds

    def _is_whole(
        self, status: os.stat_result, name: Path, seen: dict[Path, _Seen], *, now_s: float, clock_ns: int
    ) -> bool:
        """Whether a file counts as written; one that does not is added to `seen`.

        One that nobody has open for writing, as after a rename into place, is whole at once, and one that somebody has
        is not: a file may have its size before its content. Where that cannot be told, one whose last byte is old
        enough is whole, or one that was seen unchanged for long enough; an empty one longer.
        """
        settle_s = self._settle_s if status.st_size else max(self._settle_s, EMPTY_S)
        before = self._seen.get(name)
        if before is None or (before.size, before.mtime_ns) != (status.st_size, status.st_mtime_ns):
            before = _Seen(status.st_size, status.st_mtime_ns, now_s)
        if self._now_ns is not None:
            written = has_writer(self.folder / name)
            if written:
                seen[name] = before
                if now_s - before.since_s >= self._held_s:
                    self.held.append(name)
                return False
            if clock_ns - status.st_mtime_ns >= 1e9 * settle_s or (status.st_size and written is False):
                return True
        if now_s - before.since_s >= settle_s:
            return True
        seen[name] = before
        return False

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """All image files, with names relative to the folder; as text, for making a Path takes longest of all."""
        self._left_out.clear()
        self._orphans = 0
        waiting = [""]
        while waiting:
            inner = waiting.pop()
            try:
                with os.scandir(self.folder / inner) as entries:
                    for entry in entries:
                        name = f"{inner}/{entry.name}" if inner else entry.name
                        if self._is_searched(entry):
                            waiting.append(name)
                        elif status := self._image_status(entry):
                            yield name, status
            except OSError as error:
                self._tell_away(inner, error)
                if not inner:
                    return
            else:
                self._tell_back(inner)

    def _is_searched(self, entry: os.DirEntry[str]) -> bool:
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            return False
        hidden = entry.name.startswith(".") or entry.name.lower() in COPIES
        return is_folder and not hidden and os.path.realpath(entry.path) not in self._leave_out

    def _image_status(self, entry: os.DirEntry[str]) -> os.stat_result | None:
        """The status of an image file; anything else is counted as left out, hidden files and folders aside."""
        if entry.name.startswith("."):
            self._orphans += entry.name.startswith(GRABBED) and entry.name.lower().endswith(SUFFIXES)
            return None
        try:
            status = entry.stat()
        except FileNotFoundError:
            if entry.is_symlink():
                self._left_out["links to nothing"] += 1
            return None  # it was moved away in this moment
        except OSError as error:
            self._left_out[f"cannot be looked at ({error.strerror})"] += 1
            return None
        if stat.S_ISDIR(status.st_mode):
            if entry.is_symlink():
                self._left_out["links to folders"] += 1
            return None
        _, dot, letters = entry.name.lower().rpartition(".")
        ending = dot and f".{letters}"
        if ending not in SUFFIXES or not stat.S_ISREG(status.st_mode):
            self._left_out[ending or "without an ending"] += 1
            return None
        return status

    def _tell_away(self, inner: str, error: OSError) -> None:
        what = self.folder / inner
        if not inner:
            self.there = False
        elif isinstance(error, FileNotFoundError):
            return  # a folder in it was removed meanwhile
        self._events.begin(
            f"folder {inner}", f"{what} cannot be read ({error.strerror}); waiting until it can be."
        )

    def _tell_back(self, inner: str) -> None:
        if not inner:
            self.there = True
        if self._events.faults:
            self._events.end(f"folder {inner}", f"{self.folder / inner} can be read again.")

    def _tell_held(self) -> None:
        if self.held:
            self._events.begin(
                "held",
                f"{self.held[0]} is open for writing, and nothing was written to it for {self._held_s:.0f} s; it is "
                "judged once the program that writes it has closed it.",
            )
        else:
            self._events.end("held", "No file is held open without being written to any more.")

    def _tell_orphans(self) -> None:
        if self._orphans:
            self._events.begin(
                "orphans",
                f"{self._orphans:,} pictures lie hidden as {GRABBED}NUMBER: they were being moved when their journal "
                "was lost. Rename them to have them judged.",
            )

    def _tell_left_out(self) -> None:
        """One line on files that are no images, when there are other ones, and not too often."""
        if time.monotonic() < self._tell_at_s or not self._left_out - self._told_left_out:
            return
        self._told_left_out = self._left_out.copy()
        self._tell_at_s = time.monotonic() + LEFT_OUT_EVERY_S
        kinds = [f"{ending} {count:,}" for ending, count in self._left_out.most_common(ENDINGS_SHOWN)]
        more = len(self._left_out) - len(kinds)
        self._events.tell(
            f"{sum(self._left_out.values()):,} files are left out, as they are no images ({', '.join(SUFFIXES)}): "
            f"{', '.join(kinds)}{f' and {more} other kinds' if more > 0 else ''}."
        )


def _mark(name: str, size: int, mtime_ns: int, inode: int, ctime_ns: int) -> int:
    """What stands for a file in memory, of which there may be many."""
    return hash((name, size, mtime_ns, inode, ctime_ns))
