"""Frames of a video or a camera as files in the watched folder, from where they are judged like all others.

So a frame survives a kill and an outage of the server, and is judged once. A video's frames are named by their numbers
and written once. A camera's are named by the time; it cannot wait, so that they pile up while the server is away.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.files import StorageError
from client.watching.events import Events
from client.watching.sources.capture import Capture, CaptureError, Source

MOST_WAITING = 50  # frames of a video that wait to be judged; then it is read no further
POLL_S = 0.05
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0


@dataclass(frozen=True)
class Frames:
    """Which frames are judged.

    Attributes:
        source: where they come from.
        every: each so many-th frame.
        fps: at most so many a second; None: no limit.
    """

    source: Source
    every: int = 1
    fps: float | None = None


class FrameGrabber:
    """Writes frames into a folder, in a thread of its own.

    Attributes:
        ended: set when a video has no more frames or cannot be read, and on an error that nothing was foreseen for.
        fault: why it ended early; None where it did not.
        lost: frames that could not be decoded or written.
    """

    def __init__(
        self, frames: Frames, folder: Path, *, is_known: Callable[[Path], bool], events: Events
    ) -> None:
        """Prepare to write into `folder`; `is_known` says whether a picture of that name was judged."""
        self._frames, self._folder, self._is_known, self._events = frames, folder, is_known, events
        self._stop = threading.Event()
        self._written: deque[Path] = deque()
        self.ended = threading.Event()
        self.fault: str | None = None
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)

    def __enter__(self) -> FrameGrabber:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # of a thread that nobody would miss
            why = error.message if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
            self.fault = f"No more frames come from the {self._frames.source.shown}: {why}"
            self._events.tell(self.fault)
        finally:
            self.ended.set()

    def _read(self) -> None:
        """Read frames until a video ends, or until told to stop."""
        source, wait_s = self._frames.source, FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                with Capture(source) as capture:
                    self._events.end("source", f"The {source.shown} gives pictures again.")
                    if source.is_file:
                        self._read_video(capture)
                        break
                    if self._read_camera(capture):
                        wait_s = FIRST_WAIT_S
                raise CaptureError(f"The {source.shown} gives no more pictures.")
            except CaptureError as error:
                if source.is_file:
                    self.fault = str(error)
                    self._events.tell(str(error))
                    break
                if not self._stop.is_set():
                    self._events.begin("source", f"{error} It is opened again and again.")
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _read_video(self, capture: Capture) -> None:
        source, number, due = self._frames.source, -1, 0.0
        step = capture.fps / self._frames.fps if self._frames.fps and capture.fps else 0.0
        while not self._stop.is_set() and capture.skip():
            number += 1
            if number % self._frames.every or number < due:
                continue
            due += step
            name = Path(f"{source.label}-{number:06}.png")
            if (self._folder / name).exists() or self._is_known(name):
                continue
            content = capture.png()
            if content is None:
                self._events.tell(
                    f"Frame {number} of the {source.shown} cannot be decoded; it is not judged."
                )
                self.lost += 1
                continue
            while not self._stop.is_set() and (
                self._waiting() >= MOST_WAITING or not self._write(name, content)
            ):
                self._stop.wait(POLL_S)
            self._written.append(name)
        if not self._stop.is_set() and number + 1 < capture.frames:
            self._events.tell(
                f"The {source.shown} ends after {number + 1} of the {capture.frames} frames that it announces."
            )

    def _read_camera(self, capture: Capture) -> bool:
        """Write a camera's frames until it gives no more; says whether it gave any."""
        count, number, due_s = 0, 0, 0.0
        while not self._stop.is_set() and capture.skip():
            number += 1
            now_s = time.monotonic()
            if number % self._frames.every or now_s < due_s:
                continue
            due_s = max(due_s + 1 / self._frames.fps, now_s - 1) if self._frames.fps else 0.0
            content = capture.png()
            if content is None:
                self._events.begin(
                    "decoding",
                    f"A frame of the {self._frames.source.shown} cannot be decoded; it is not judged, and is lost.",
                )
                self.lost += 1
                continue
            self._events.end(
                "decoding", f"The frames of the {self._frames.source.shown} can be decoded again."
            )
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            if not self._write(Path(f"{self._frames.source.label}-{moment}-{number:06}.png"), content):
                self.lost += 1
            count += 1
        return count > 0

    def _waiting(self) -> int:
        """Frames that were written and are not judged yet."""
        while self._written and self._is_known(self._written[0]):
            self._written.popleft()
        return len(self._written)

    def _write(self, name: Path, content: bytes) -> bool:
        """Put a file into the folder, whole; says whether that worked."""
        temporary = self._folder / f".{name}.part"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._folder / name)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self._events.begin("frames", f"Frames cannot be written into {self._folder} ({error.strerror}).")
            return False
        self._events.end("frames", f"Frames are written into {self._folder} again.")
        return True
