"""What `watch` judged, taken over from its journal: each verdict once, over every restart of either side."""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from client.core.errors import ClientError
from client.files import StorageError
from client.page.inspecting import views
from client.page.inspecting.files import keep_copy, shown_name
from client.page.inspecting.station import Station
from client.page.state import State
from client.page.store import inspections
from client.page.store.inspections import Judged, NewInspection
from client.pictures.images import load_image
from client.predictions.prediction import Prediction
from client.watching import journal as watching
from client.watching.journal import Journal

POLL_S = 0.5
AFTER_FAULT_S = 5.0
AT_A_TIME = 50
MOVING_S = 5.0  # within which a picture that was recorded may still be on its way to where it is moved
MOST_LOOKS, LOOK_AGAIN_S = 4, 0.1


class Feed:
    """Reads one journal, in a thread of its own."""

    def __init__(self, path: Path, state: State, *, own: bool = False) -> None:
        """Prepare to follow a journal; one of the page's `own` watches is made by that, which says where it cannot."""
        self._path, self._state, self._own = path, state, own
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{path.name}", daemon=True)

    def start(self) -> None:
        """Begin after the last verdict that was taken over."""
        self._thread.start()

    def close(self) -> None:
        """End after the picture in hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        about = f"journal {self._path}"
        while not self._stop.is_set():
            try:
                with closing(Journal(self._path, read_only=True)) as journal:
                    self._state.notice(about, None)
                    if journal.folder.is_absolute():
                        self._follow(journal)
                self._stop.wait(POLL_S)  # a journal that is being made does not know its folder yet
            except (ClientError, StorageError) as error:
                if not self._own or self._path.exists():
                    self._state.notice(about, f"No verdicts come from {self._path}: {error.message}")
                self._stop.wait(AFTER_FAULT_S)
            except Exception as error:  # the thread must live on, and say so
                traceback.print_exc(file=sys.stderr)
                self._state.notice(
                    about, f"No verdicts come from {self._path}: {error!r}; the page's log says where."
                )
                self._stop.wait(AFTER_FAULT_S)

    def _follow(self, journal: Journal) -> None:
        number = inspections.last_number(self._state.database, journal.id)
        while not self._stop.is_set():
            verdicts = journal.judged_since(number, AT_A_TIME)
            for judged in verdicts:
                if self._stop.is_set():
                    return
                self._take_over(judged, journal)
                number = judged.number
            if not verdicts:
                self._stop.wait(POLL_S)

    def _take_over(self, judged: watching.Judged, journal: Journal) -> None:
        category = journal.category if judged.prediction is None else judged.prediction.category
        station = self._state.stations.get(category)
        if station is None:
            self._state.notice(
                f"category {category}",
                f"{self._path} holds verdicts on {category!r}, which this page does not show; start it with "
                f"--category {category} too.",
            )
            return
        new, image = self._describe(judged, journal, station)
        if new.picture is None and self._stop.is_set():
            return  # it may be on its way; it is taken over after the next start
        verdict = None if judged.prediction is None else _verdict_of(judged.prediction)
        fault = None if verdict else judged.fault or "It was not judged; the watch did not say why."
        added = None
        try:
            added = inspections.add(self._state.database, new, verdict, fault=fault)
        finally:
            if added is None and new.picture is not None:  # it is known already, or the disk is full
                (self._state.database.pictures / new.picture).unlink(missing_ok=True)
        if added is not None:
            if image is not None:
                station.previews.keep(added, image)
            station.tell_changed(added)

    def _keep_copy(self, judged: watching.Judged, journal: Journal) -> str | None:
        """Copy a picture; one that is moved in this moment is looked for again, where the journal has it then."""
        for _ in range(MOST_LOOKS):
            place = keep_copy(self._state.database.pictures, judged.paths, judged.digest)
            age_s = (datetime.now(UTC) - judged.judged_at).total_seconds()
            if place is not None or not judged.digest or age_s > MOVING_S:
                return place
            self._stop.wait(LOOK_AGAIN_S)
            judged = next(iter(journal.judged_since(judged.number - 1, 1)), judged)
        return None

    def _describe(
        self, judged: watching.Judged, journal: Journal, station: Station
    ) -> tuple[NewInspection, bytes | None]:
        """The picture, copied: the folder that it lies in may be emptied tomorrow. Its preview, where it is there."""
        pictures = self._state.database.pictures
        place = self._keep_copy(judged, journal)
        thumbnail = preview = size = None
        if place is not None:
            try:
                image = load_image(pictures / place, bit_depth=station.bit_depth)
                thumbnail, preview, size = views.thumbnail(image), views.preview(image), image.size
            except ClientError:
                pass  # it was not judged, for the same reason
        new = NewInspection(
            category=station.category,
            name=shown_name(str(judged.path)),
            source=journal.id,
            number=judged.number,
            arrived_at=judged.judged_at.timestamp(),
            picture=place,
            thumbnail=thumbnail,
            width=size and size[0],
            height=size and size[1],
        )
        return new, preview


def _verdict_of(prediction: Prediction) -> Judged:
    defects = prediction.defects
    return Judged(
        score=prediction.score,
        threshold=prediction.threshold,
        anomalous=prediction.anomalous,
        release_id=prediction.release_id,
        latency_ms=prediction.latency_ms,
        synthetic=prediction.synthetic,
        defects=None if defects is None else [defect.to_dict() for defect in defects],
    )
