"""`watch`: a folder, its journal, its sinks and a server, put together and kept running until told to stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.core.errors import ImageFileError, RequestError
from client.files import StorageError, require_writable_folder
from client.judging.connection import JudgeClient
from client.watching.asking import Server, ask
from client.watching.events import Events
from client.watching.filesystems import network_of
from client.watching.forgetting import Forgetting
from client.watching.journal import Journal, journal_path
from client.watching.locking import FolderLock, locked_file, locked_folder
from client.watching.moving import Destinations, Mover
from client.watching.pipeline import Pipeline
from client.watching.rows import REMOVED
from client.watching.sinks.choice import Sinks, make_sinks, missing_extra
from client.watching.sinks.delivery import Delivery
from client.watching.sinks.outbox import Outbox
from client.watching.sources.folder import DropFolder
from client.watching.sources.frames import FrameGrabber, Frames
from client.watching.sources.recorded import Recorded
from client.watching.tally import Tally

HELD_S = 30.0  # in which a file is open for writing, and not written to, until that is told
ENDING_S, ENDING_ONCE_S = 3.0, 30.0  # for the sinks to take what waits


@dataclass(frozen=True)
class Watch:
    """What is watched, and how.

    Attributes:
        folder: where pictures arrive; those in folders in it too, hidden ones aside.
        category: that they are judged as.
        journal: the file; None: in the folder, see `journal_path`.
        destinations: where pictures go once they are judged.
        frames: a video or a camera whose frames are put into the folder first.
        sinks: where verdicts go besides the journal.
        settle_s: seconds in which a file must not change before it is read.
        poll_s: seconds between two looks into the folder.
        status_s: seconds between two lines on how it goes.
        in_flight: pictures that are asked about at a time.
        once: judge what is there, and end.
        keep_days: pictures that were judged longer ago are forgotten, unless their files still lie in the folder.
        patience_s: with `once`, seconds for which a server that is away is waited for.
    """

    folder: Path
    category: str
    journal: Path | None = None
    destinations: Destinations = field(default_factory=Destinations)
    frames: Frames | None = None
    sinks: Sinks = field(default_factory=Sinks)
    settle_s: float = 0.5
    poll_s: float = 0.2
    status_s: float = 60.0
    in_flight: int = 4
    once: bool = False
    keep_days: float | None = None
    patience_s: float = 10.0


def watch(
    asked: Watch, connect: Callable[[], JudgeClient], *, stop: threading.Event, events: Events | None = None
) -> Tally:
    """Judge what arrives until `stop` is set; every picture exactly once, over any end of this process or the server.

    Args:
        asked: what is watched.
        connect: connects to the server; called again until it succeeds.
        stop: once it is set, no further picture is asked about; the answers on their way are recorded.
        events: told what happens, one line each; to standard error if not given.

    Raises:
        ClientError: nothing can be watched in this way.
        StorageError: another one watches the folder, or the journal cannot be used.
    """
    events = events or Events()
    _require_folder(asked)
    asked = replace(asked, folder=asked.folder.absolute())
    path = asked.journal or journal_path(asked.folder)
    with (
        locked_folder(asked.folder) as lock,
        locked_file(path),
        Journal(path) as journal,
        contextlib.ExitStack() as closing,
    ):
        journal.belong_to(asked.folder, asked.category)
        sinks = make_sinks(asked.sinks, category=asked.category, journal_id=journal.id)
        deliveries = [Delivery(sink, Outbox(journal, asked.category, sink.name), events) for sink in sinks]
        server = Server(connect)
        closing.push(server.leave)
        for delivery in deliveries:
            closing.callback(delivery.close, within_s=0)
        recorded = Recorded(asked.folder, journal, events)
        folder = _drop_folder(asked, recorded, lock, events)
        pipeline = Pipeline(
            folder,
            journal,
            Mover(asked.folder, journal, events=events, forget=folder.forget),
            ask=lambda arrival: ask(server, asked.folder, arrival),
            destinations=asked.destinations,
            in_flight=asked.in_flight,
            patience_s=asked.patience_s if asked.once else None,
            events=events,
            stop=stop,
            recorded=[delivery.wake for delivery in deliveries],
        )
        events.tell(f"Watching {asked.folder} for category {asked.category}; the journal is {path}.")
        with _frames(asked, journal, events) as grabber:
            forgetting = Forgetting(journal, asked.folder, asked.keep_days, [sink.name for sink in sinks])
            _run(
                asked, pipeline, deliveries, grabber=grabber, forgetting=forgetting, stop=stop, events=events
            )
        _count_left(asked, pipeline.tally, folder, recorded, events)
        _end(asked, pipeline, deliveries, events)
    return pipeline.tally


def _drop_folder(asked: Watch, recorded: Recorded, lock: FolderLock, events: Events) -> DropFolder:
    return DropFolder(
        asked.folder,
        settle_s=asked.settle_s,
        held_s=asked.patience_s if asked.once else HELD_S,
        is_known=recorded.is_known,
        now_ns=None if network_of(asked.folder) else lock.now_ns,
        leave_out=asked.destinations.folders,
        events=events,
    )


def _run(
    asked: Watch,
    pipeline: Pipeline,
    deliveries: Sequence[Delivery],
    *,
    grabber: FrameGrabber | None,
    forgetting: Forgetting,
    stop: threading.Event,
    events: Events,
) -> None:
    """Work until there is nothing more to do, or until told to stop."""
    finite = asked.once or (asked.frames is not None and asked.frames.source.is_file)
    status_at_s = time.monotonic() + asked.status_s
    try:
        while not stop.is_set() and pipeline.tally.fault is None:
            source_ended = grabber is None or grabber.ended.is_set()
            if grabber is not None:
                finite, pipeline.tally.lost = finite or grabber.fault is not None, grabber.lost
            busy = pipeline.step(asked.poll_s)
            events.count(pipeline.waiting)
            forgetting.look()
            if any(delivery.closed_by_reader for delivery in deliveries):
                stop.set()
            if finite and source_ended and not busy and pipeline.has_looked:
                pipeline.tally.fault = None if grabber is None else grabber.fault
                return
            if time.monotonic() >= status_at_s:
                status_at_s += asked.status_s
                events.tell(_status(pipeline, deliveries))
            pipeline.wait(asked.poll_s)
    except BaseException:
        pipeline.abandon()
        raise
    finally:
        pipeline.tally.lost = 0 if grabber is None else grabber.lost


def _count_left(asked: Watch, tally: Tally, folder: DropFolder, recorded: Recorded, events: Events) -> None:
    """With `once`, what lies there without a verdict counts, whichever run has found out that it gets none."""
    if not asked.once:
        return
    unjudged = recorded.unjudged()
    tally.unread += len(folder.held)
    tally.unjudged += len(unjudged)
    if unjudged:
        events.tell(
            f"{len(unjudged):,} files still lie there that an earlier run could not judge, as {unjudged[0]}; give "
            "--move-unjudged, or take them out."
        )


def _end(asked: Watch, pipeline: Pipeline, deliveries: Sequence[Delivery], events: Events) -> None:
    """Record the answers on their way, and let the sinks take what they can."""
    pipeline.close()
    for delivery in deliveries:
        waiting = delivery.close(within_s=ENDING_ONCE_S if asked.once else ENDING_S)
        if waiting and not delivery.closed_by_reader:
            pipeline.tally.undelivered += waiting
            events.tell(f"{delivery.sink.name}: {waiting:,} messages wait in the journal for the next run.")
    events.tell(f"Ended; {pipeline.tally}.")


def _status(pipeline: Pipeline, deliveries: Sequence[Delivery]) -> str:
    tally = pipeline.tally
    parts = [f"{tally}; {tally.rate():.0f} a minute; {pipeline.waiting:,} wait"]
    parts += [
        f"{delivery.sink.name}: {count:,} wait" for delivery in deliveries if (count := delivery.count())
    ]
    return "; ".join(parts) + "."


@contextlib.contextmanager
def _frames(asked: Watch, journal: Journal, events: Events) -> Iterator[FrameGrabber | None]:
    """The thread that puts frames into the folder, if there is a source."""
    if asked.frames is None:
        yield None
        return
    try:
        import cv2  # noqa: F401 (told now, and not by a thread)
    except ModuleNotFoundError as error:
        raise RequestError(missing_extra(error)) from None
    with FrameGrabber(asked.frames, asked.folder, is_known=journal.has_name, events=events) as grabber:
        yield grabber


def _require_folder(asked: Watch) -> None:
    """Make sure that the folder can be watched, and pictures moved where they are to go.

    Raises:
        ImageFileError: it is none, or it cannot be read.
        RequestError: pictures would be moved to where they are.
        StorageError: a folder that they are moved to cannot be written.
    """
    try:
        next(asked.folder.iterdir(), None)
    except FileNotFoundError:
        raise ImageFileError(
            f"{asked.folder} does not exist; give the folder in which pictures arrive."
        ) from None
    except NotADirectoryError:
        raise ImageFileError(f"{asked.folder} is a file; give the folder in which pictures arrive.") from None
    except OSError as error:
        raise ImageFileError(f"{asked.folder} cannot be read ({error.strerror}).") from None
    for place in asked.destinations.folders:
        if place.resolve() == asked.folder.resolve() or place.resolve() in asked.folder.resolve().parents:
            raise RequestError(
                f"Pictures cannot be moved to {place}, which holds the watched folder; give another one."
            )
        require_writable_folder(place)
    if asked.destinations.folders or REMOVED in vars(asked.destinations).values():
        try:
            require_writable_folder(asked.folder)
        except StorageError as error:
            raise StorageError(f"Pictures cannot be moved out of it: {error.message}") from None
