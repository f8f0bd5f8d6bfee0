"""A watched folder: pictures are written into it, `watch` is started on it, and afterwards all are counted."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from client.predictions.jsonl import read_jsonl
from client.watching.database import JournalError
from client.watching.journal import Journal, journal_path
from tests.products import ROOT

CATEGORY, SIZE = "part", 64
PAUSE_S = 0.004  # between two pictures: faster than they are judged
PATIENCE_S = 900.0


@dataclass
class Phase:
    """What became of the pictures of one part.

    Attributes:
        what: was done.
        pictures: that were written.
        kills: of `watch` and of the server.
        seconds: from the first picture to the last verdict.
        lost, twice: pictures that are not, or more than once, in the journal, the lines, or the folders they go to.
        memory_mib: of `watch`, once a second, where it was not killed.
    """

    what: str
    pictures: int
    kills: int = 0
    seconds: float = 0.0
    lost: int = 0
    twice: int = 0
    memory_mib: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory at the end as a share of that after a fifth of the time."""
        fifth = self.memory_mib[len(self.memory_mib) // 5 :]
        return max(fifth[-5:]) / max(fifth[:5]) if fifth else 1.0


class Place:
    """A watched folder, where its pictures go, and the `watch` of it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.drop, self.good, self.bad = folder / "drop", folder / "good", folder / "bad"
        self.jsonl, self.log = folder / "verdicts.jsonl", folder / "watch.log"
        self.drop.mkdir(parents=True)

    def start(self, url: str) -> subprocess.Popen[bytes]:
        """Start `watch`."""
        command = [
            sys.executable, "-m", "client", "watch", self.drop, "--category", CATEGORY, "--url", url,
            "--timeout-s", "5", "--move-good", self.good, "--move-bad", self.bad, "--jsonl", self.jsonl,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            return subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=log, stderr=log)

    def judged(self, after: int = 0) -> int:
        """The number of the last verdict."""
        try:
            with Journal(journal_path(self.drop), read_only=True) as journal:
                while batch := journal.judged_since(after):
                    after = batch[-1].number
        except JournalError:
            pass  # it is not made yet
        return after

    def wait_for(self, number: int) -> None:
        """Wait until so many pictures are judged."""
        until_s, so_far = time.monotonic() + PATIENCE_S, 0
        while (so_far := self.judged(so_far)) < number:
            if time.monotonic() > until_s:
                said = self.log.read_text(encoding="utf-8")[-2000:]
                raise TimeoutError(f"{so_far} of {number} pictures are judged; {said}")
            time.sleep(0.1)

    def compare(self, phase: Phase) -> None:
        """Count what is lost, and what is there twice."""
        with Journal(journal_path(self.drop), read_only=True) as journal:
            rows = journal.judged_since(0, limit=10**9)
            recorded = [Path(each.prediction.image).name for each in rows if each.prediction is not None]
        lines = [Path(line.image).name for line in read_jsonl(self.jsonl)]
        moved = [
            path.name for folder in (self.good, self.bad) if folder.exists() for path in folder.iterdir()
        ]
        names = {name_of(number) for number in range(phase.pictures)}
        for found in (recorded, lines, moved):
            phase.lost = max(phase.lost, len(names - set(found)))
            phase.twice = max(phase.twice, sum(count - 1 for count in Counter(found).values()))


def name_of(number: int) -> str:
    """Of a picture."""
    return f"{number:06}.png"


def write_pictures(drop: Path, count: int, pause_s: float) -> None:
    """Write pictures of noise, no two alike: the even ones in place and in two parts, the odd ones renamed there."""
    generator = np.random.default_rng(7)
    for number in range(count):
        pixels = generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        content, path = buffer.getvalue(), drop / name_of(number)
        if number % 2:
            temporary = drop / f"{path.name}.tmp"
            temporary.write_bytes(content)
            temporary.rename(path)
        else:
            with path.open("wb") as file:
                file.write(content[:5000])
                file.flush()
                time.sleep(pause_s)
                file.write(content[5000:])
        time.sleep(pause_s)


@contextmanager
def writing(drop: Path, count: int, pause_s: float = PAUSE_S) -> Iterator[None]:
    """Write pictures in a thread for the length of a `with` block."""
    thread = threading.Thread(target=write_pictures, args=(drop, count, pause_s))
    thread.start()
    try:
        yield
    finally:
        thread.join()
