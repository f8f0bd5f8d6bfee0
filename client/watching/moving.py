"""Judged pictures moved apart: never one over another, across disks too, and finished after an end in the middle.

A picture goes in three steps, each found again after a kill: the place is in the journal already; the file gets a
hidden name beside itself, so that what the camera writes there next is left alone; then it goes to its place.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.watching.arrivals import Arrival
from client.watching.database import JournalError
from client.watching.events import Events
from client.watching.journal import Journal
from client.watching.rows import REMOVED, Known, grabbed_path, numbered

MOST_NAMES = 10_000  # of one picture, until a free one is found
MOST_FAILURES = 20  # of one round; what fails then is tried again in the next


@dataclass(frozen=True)
class Destinations:
    """Where pictures go once they are judged; None: they stay.

    Attributes:
        good, bad, unjudged: folders, or REMOVED.
    """

    good: Path | None = None
    bad: Path | None = None
    unjudged: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """The folders among them."""
        return [place for place in (self.good, self.bad, self.unjudged) if place and place != REMOVED]

    def target(self, name: Path, *, anomalous: bool | None) -> Path | None:
        """The path for a picture; `anomalous` is None where it was not judged."""
        place = self.unjudged if anomalous is None else self.bad if anomalous else self.good
        return place if place is None or place == REMOVED else (place / name).absolute()


class Mover:
    """Moves the pictures that the journal says are to be moved."""

    def __init__(
        self, folder: Path, journal: Journal, *, events: Events, forget: Callable[[Arrival], None]
    ) -> None:
        """Move out of `folder`; `forget` is told which file is no longer there."""
        self._folder, self._journal, self._events, self._forget = folder, journal, events, forget

    def finish(self) -> bool:
        """Move all pictures that wait for it; says whether none is left that could not be."""
        number = failed = 0
        while failed < MOST_FAILURES and (batch := self._journal.unsettled(after=number)):
            for known in batch:
                number = known.number
                try:
                    self._move(known)
                except (OSError, JournalError) as error:
                    if not failed:
                        self._tell(known, error)
                    failed += 1
                self._forget(known.arrival)
        if not failed:
            self._events.end("moving", "Pictures are moved again.")
        return not failed

    def _tell(self, known: Known, error: OSError | JournalError) -> None:
        if isinstance(error, JournalError):
            self._events.begin("moving", error.message)
            return
        where = "removed" if known.target == REMOVED else f"moved to {known.target}"
        self._events.begin(
            "moving",
            f"{known.arrival.name} cannot be {where} ({error.strerror or error}); it waits, and is tried again.",
        )

    def _move(self, known: Known) -> None:
        source, target = self._folder / known.arrival.name, known.target
        grabbed = grabbed_path(source, known.number)
        if not grabbed.exists():
            if not known.is_still(source):
                self._find(known, source)
                return
            source.rename(grabbed)
        if not known.arrival.is_still(grabbed):  # exchanged in the last moment
            self._link_back(grabbed, source)
            self._stays(known)
            return
        try:
            if target is None or target == REMOVED:
                grabbed.unlink()
            else:
                self._place(grabbed, known, target)
        except OSError:
            if self._reserve(source, known.number):  # it is seen where it was until it can be moved
                grabbed.rename(source)
            raise
        self._journal.settle(known.number)

    def _find(self, known: Known, source: Path) -> None:
        """What became of a file that is not there: written over, moved before the process ended, or taken."""
        if known.target in (None, REMOVED) or (
            known.target is not None and known.arrival.is_still(known.target)
        ):
            self._journal.settle(known.number)
        elif source.exists():
            self._stays(known)
        else:
            self._events.tell(
                f"{known.arrival.name} was judged, and somebody took it before it was moved to {known.target}."
            )
            self._journal.settle(known.number, stays=True)

    def _stays(self, known: Known) -> None:
        self._events.tell(
            f"{known.arrival.name} was written over after it was judged as number {known.number}; what stands there "
            "now is another picture, and is judged."
        )
        self._journal.settle(known.number, stays=True)

    def _place(self, grabbed: Path, known: Known, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        for count in range(MOST_NAMES):
            place = numbered(target, known.number, count) if count else target
            if count:
                self._journal.aim(known.number, place)
            if known.arrival.is_still(place) and filecmp.cmp(grabbed, place, shallow=False):
                grabbed.unlink()  # it was copied, and then the process ended
                return
            if self._reserve(place, known.number):
                self._rename_or_copy(grabbed, place, known.number)
                return
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _reserve(self, place: Path, number: int) -> bool:
        """Take a path with a note of whose it is; says whether it was free, or ours since before a kill."""
        note = f"{self._journal.id} {number}".encode()
        try:
            with place.open("xb") as file:
                file.write(note)
        except FileExistsError:
            return place.stat().st_size == len(note) and place.read_bytes() == note
        return True

    def _rename_or_copy(self, source: Path, place: Path, number: int) -> None:
        """Put a file in the place of the note; the note goes where that fails."""
        try:
            try:
                source.rename(place)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(source, place)
        except OSError:
            if self._reserve(place, number):
                place.unlink()
            raise

    def _copy(self, source: Path, place: Path) -> None:
        """Move a file to another disk: it is there whole before it is gone here."""
        temporary = place.with_name(f".astmfr-{self._journal.id}{source.name}.part")
        try:
            shutil.copy2(source, temporary)
            with temporary.open("rb") as copied:
                os.fsync(copied.fileno())
            temporary.rename(place)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        source.unlink()

    def _link_back(self, grabbed: Path, source: Path) -> None:
        """Give a file that is not ours to move its name back, or one beside it where that is taken by now."""
        for count in range(MOST_NAMES):
            place = source.with_name(f"{source.stem}-{count}{source.suffix}") if count else source
            if self._reserve(place, 0):
                grabbed.rename(place)
                return
