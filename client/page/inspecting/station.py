"""One category's pictures, from waiting to judged; what cannot be judged now goes on waiting, in the database.

Nothing is lost where the page or the server ends: pictures wait in the database, and are judged after the next start.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from client.core.errors import (
    AnswerError,
    ClientError,
    ImageFileError,
    RefusedImage,
    ServerFault,
)
from client.core.verdicts import Verdict
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.page.events import Hub
from client.page.inspecting import maps, views
from client.page.inspecting.connections import Connection
from client.page.store import inspections
from client.page.store.database import Database
from client.page.store.inspections import Inspection, Judged
from client.pictures.images import load_image

WORKERS = 2  # enough for reading one picture while another is judged
# A picture on which the server fails counts as not judged after so many tries, if the server judged another one
# meanwhile, or fails for so long.
TRIES, FAULT_PATIENCE_S = 3, 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
LOOK_TIMEOUT_S = 3.0  # to learn which release is live
POLL_S = 1.0  # where nobody says that a picture came


@dataclass(frozen=True)
class Status:
    """What a station knows of its server.

    Attributes:
        fault: why nothing is judged now, a sentence; None where all is well.
        release_id: that judges; None before the first connection.
        synthetic: it was trained on rendered images.
    """

    category: str
    fault: str | None = None
    release_id: int | None = None
    synthetic: bool = False

    def to_dict(self) -> dict[str, str | bool | None]:
        """For the browser, whose numbers are too short for a release's id."""
        release = None if self.release_id is None else str(self.release_id)
        return {
            "category": self.category,
            "fault": self.fault,
            "release_id": release,
            "synthetic": self.synthetic,
        }


class Station:
    """Judges what waits of a category, in threads of its own."""

    def __init__(self, category: str, *, url: str, timeout_s: float, database: Database, hub: Hub) -> None:
        self.category = category
        # From the last verdict, until the server is connected to: what is shown of it must say so.
        self.status = Status(category, synthetic=inspections.last_is_synthetic(database, category))
        self.previews = views.Previews()
        self._url, self._timeout_s, self._database, self._hub = url, timeout_s, database, hub
        self._connection, self._in_hand_guard = Connection(self._connect), threading.Lock()
        self._in_hand: set[int] = set()
        self._next_greeting_s, self._judged_at_s = 0.0, 0.0
        self._came, self._stop = threading.Condition(), threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"station-{category}-{number}", daemon=True)
            for number in range(WORKERS)
        ]

    def start(self) -> None:
        """Begin with what waits from before."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End after the pictures in hand; the others wait for the next start."""
        self._stop.set()
        self.wake()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def wake(self) -> None:
        """A picture has come."""
        with self._came:
            self._came.notify_all()

    @property
    def bit_depth(self) -> int:
        """White of deep pictures, where the server is known; else 8."""
        judge = self._connection.current
        return 8 if judge is None else judge.bit_depth

    @contextmanager
    def judging(self) -> Iterator[JudgeClient]:
        """The connection, made where there is none yet; whoever has it has it until the end of the block.

        Raises:
            ClientError: see `JudgeClient`.
        """
        is_new = self._connection.current is None
        with self._connection.lent() as judge:
            if is_new:
                self.tell(None)
            yield judge

    def ask_live(self) -> int:
        """Ask the server which release is live, whatever was judged before.

        Raises:
            ClientError: see `JudgeClient`.
        """
        timeout_s = min(self._timeout_s, LOOK_TIMEOUT_S)  # somebody waits for the answer
        with JudgeClient(self._url, category=self.category, timeout_s=timeout_s) as judge:
            release_id = judge.release_id
        known = self._connection.current
        if known is None or known.release_id != release_id:
            self._connection.renew()
            self.tell(None)
        return release_id

    def tell(self, fault: str | None) -> None:
        """Say how the server is, where that is news."""
        judge = self._connection.current
        status = replace(self.status, fault=fault)
        if judge is not None:
            status = replace(status, release_id=judge.release_id, synthetic=judge.synthetic)
        if status != self.status:
            self.status = status
            self._hub.publish("status", status.to_dict())

    def read(self, inspection: Inspection) -> Image.Image:
        """A picture's pixels, as they are judged.

        Raises:
            ImageFileError: it is gone, or cannot be read.
        """
        return load_image(self.path(inspection), bit_depth=self.bit_depth)

    def path(self, inspection: Inspection) -> Path:
        """A picture's file.

        Raises:
            ImageFileError: it is gone.
        """
        if inspection.picture is None:
            raise ImageFileError(f"The picture {inspection.name} is not kept here (any more).")
        return self._database.pictures / inspection.picture

    def tell_changed(self, inspection: int) -> None:
        """Let every open page know how a picture stands."""
        if (found := inspections.find(self._database, inspection)) is not None:
            self._hub.publish("inspection", found.to_dict(), change=found.changed)

    def _connect(self) -> JudgeClient:
        return JudgeClient(self._url, category=self.category, timeout_s=self._timeout_s)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                inspection = self._take()
                if inspection is None:
                    self._greet()
                else:
                    self._settle_safely(inspection)
            except (
                StorageError
            ) as error:  # what waits is in the database, and is judged when that is written again
                self.tell(error.message)
                self._stop.wait(LONGEST_PAUSE_S)
            except Exception as error:  # the thread must live on, and say so
                traceback.print_exc(file=sys.stderr)
                self.tell(f"The page failed ({error!r}); its log says where.")
                self._stop.wait(LONGEST_PAUSE_S)

    def _greet(self) -> None:
        """Connect although nothing waits, so that people see beforehand whether the server is there, or there again."""
        is_well = self._connection.current is not None and self.status.fault is None
        if is_well or time.monotonic() < self._next_greeting_s:
            return
        self._next_greeting_s = time.monotonic() + LONGEST_PAUSE_S
        try:
            self.ask_live()
            self.tell(None)
        except ClientError as error:
            self.tell(error.message)

    def _settle_safely(self, inspection: Inspection) -> None:
        """Judge a picture; an error that nobody thought of costs that picture its verdict, and is told."""
        try:
            self._settle(inspection)
        except StorageError:
            raise
        except Exception as error:  # the thread must live on for the other pictures
            traceback.print_exc(file=sys.stderr)
            self._fail(inspection, f"The page failed on it ({error!r}); its log says where.")
        finally:
            with self._in_hand_guard:
                self._in_hand.discard(inspection.id)

    def _take(self) -> Inspection | None:
        """The oldest that waits and that the other thread does not have; None after a while without one."""
        with self._in_hand_guard:
            for inspection in inspections.waiting(self._database, self.category, limit=WORKERS):
                if inspection.id not in self._in_hand:
                    self._in_hand.add(inspection.id)
                    return inspection
        with self._came:
            self._came.wait(POLL_S)
        return None

    def _settle(self, inspection: Inspection) -> None:
        """Judge a picture, however long the server is away; only a fault of its own ends it without a verdict."""
        pause_s, image = FIRST_PAUSE_S, None
        failed_at_s: list[float] = []
        while not self._stop.is_set():
            try:
                with self.judging() as judge:
                    if image is None:
                        image = self.read(inspection)
                        self._describe(inspection, image)
                    verdict, synthetic = judge.judge(image), judge.synthetic
            except (ImageFileError, RefusedImage) as error:
                self._fail(inspection, error.message)
                return
            except (ServerFault, AnswerError) as error:
                failed_at_s.append(time.monotonic())
                self.tell(error.message)
                if self._is_its_own_fault(failed_at_s):
                    self._fail(inspection, error.message)
                    return
            except (
                ClientError
            ) as error:  # the server is away, overloaded, or cannot be connected to in this way
                self.tell(error.message)
            else:
                self._keep(inspection, verdict, synthetic=synthetic)
                self.tell(None)
                return
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _is_its_own_fault(self, failed_at_s: Sequence[float]) -> bool:
        """Whether it is the picture on which the server fails, and not the server that fails on every one."""
        if len(failed_at_s) < TRIES:
            return False
        first_s = failed_at_s[0]
        return self._judged_at_s > first_s or time.monotonic() - first_s >= FAULT_PATIENCE_S

    def _describe(self, inspection: Inspection, image: Image.Image) -> None:
        """Keep size and thumbnail, so that the picture is seen while the server is not there."""
        self.previews.keep(inspection.id, views.preview(image))
        inspections.describe(self._database, inspection.id, size=image.size, thumbnail=views.thumbnail(image))

    def _keep(self, inspection: Inspection, verdict: Verdict, *, synthetic: bool) -> None:
        judged = Judged(
            score=verdict.score,
            threshold=verdict.threshold,
            anomalous=verdict.anomalous,
            release_id=verdict.release_id,
            latency_ms=round(verdict.latency_ms, 3),
            synthetic=synthetic,
            defects=[defect.to_dict() for defect in verdict.defects],
        )
        inspections.settle(self._database, inspection.id, judged, maps.pack(verdict))
        self._judged_at_s = time.monotonic()
        self.tell_changed(inspection.id)

    def _fail(self, inspection: Inspection, reason: str) -> None:
        reason = reason.replace(f"{self._database.pictures}/{inspection.picture}", inspection.name)
        inspections.fail(self._database, inspection.id, reason)
        self.tell_changed(inspection.id)
