"""A video file or a camera, opened through OpenCV: `video:FILE`, `rtsp://...` or `usb:0`."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from client.core.errors import RequestError

# OpenCV and FFmpeg write of every hiccup of a stream to standard error.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

VIDEO, USB, STREAMS = "video:", "usb:", ("rtsp", "rtsps", "http", "https")
OPEN_TIMEOUT_MS, READ_TIMEOUT_MS = 10_000, 10_000
EXPECTED = "expected video:FILE, rtsp://HOST/PATH or usb:NUMBER"


@dataclass(frozen=True)
class Source:
    """Where frames come from.

    Attributes:
        label: begins the names of its frames.
        shown: for messages, without a password.
        place: what OpenCV opens.
        is_file: a video file, whose frames have numbers, and an end.
    """

    label: str
    shown: str
    place: str | int
    is_file: bool

    @classmethod
    def of(cls, text: str, *, password: str | None = None) -> Source:
        """Read `video:FILE`, `rtsp://[USER@]HOST/PATH` or `usb:NUMBER`.

        Args:
            text: the source.
            password: of the user in it.

        Raises:
            RequestError: it is none of these, or there is no such file.
        """
        if text.startswith(VIDEO):
            return cls._of_file(Path(text.removeprefix(VIDEO)))
        if text.startswith(USB):
            number = text.removeprefix(USB)
            if not number.isdecimal():
                raise RequestError(f"The source is {text!r}; {EXPECTED}.")
            return cls(f"usb{int(number)}", f"camera {text}", int(number), is_file=False)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in STREAMS or not host:
            raise RequestError(f"The source is {text!r}; {EXPECTED}.")
        if parts.password is not None:
            raise RequestError(
                "A password in an address is seen by everybody; give it in the file of --secrets."
            )
        shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
        label = re.sub(r"[^A-Za-z0-9.-]+", "-", host + parts.path).strip("-.")
        place = (
            text
            if password is None or parts.username is None
            else text.replace("@", f":{quote(password, safe='')}@", 1)
        )
        return cls(label, f"camera {shown}", place, is_file=False)

    @classmethod
    def _of_file(cls, path: Path) -> Source:
        """A video file; another one of the same name gets other names for its frames."""
        try:
            status = path.stat()
        except OSError as error:
            raise RequestError(f"The video {path} cannot be read ({error.strerror}); {EXPECTED}.") from None
        if not path.is_file():
            raise RequestError(f"The video {path} is no file; {EXPECTED}.")
        mark = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:6]
        return cls(f"{path.stem}-{mark}", f"video {path}", str(path.absolute()), is_file=True)


class CaptureError(Exception):
    """A source gives no frames; the sentence says why."""


class Capture:
    """An open source.

    Attributes:
        fps: frames a second as the source says, 0 where it does not.
    """

    def __init__(self, source: Source) -> None:
        """Open it.

        Raises:
            CaptureError: it cannot be opened.
            ModuleNotFoundError: OpenCV is not installed.
        """
        import cv2

        self._cv2: Any = cv2
        if isinstance(source.place, int):
            self._capture = cv2.VideoCapture(source.place)
        else:
            timeouts = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                OPEN_TIMEOUT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                READ_TIMEOUT_MS,
            ]
            self._capture = cv2.VideoCapture(source.place, cv2.CAP_FFMPEG, timeouts)
        if not self._capture.isOpened():
            self.close()
            raise CaptureError(f"The {source.shown} cannot be opened.")
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if 0 < fps < 1000 else 0.0
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._capture.release()

    def skip(self) -> bool:
        """Go to the next frame without decoding it; says whether there is one."""
        return bool(self._capture.grab())

    def png(self) -> bytes | None:
        """The frame that was gone to, as a PNG file, losslessly; None where it cannot be decoded."""
        found, frame = self._capture.retrieve()
        if not found:
            return None
        # The least compression: these files live for seconds.
        written, encoded = self._cv2.imencode(".png", frame, [self._cv2.IMWRITE_PNG_COMPRESSION, 1])
        return encoded.tobytes() if written else None
