"""Frames of a video file and of a camera, judged once each."""

from __future__ import annotations

import http.server
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from client.core.errors import RequestError
from client.watching.moving import Destinations
from client.watching.rows import REMOVED
from client.watching.sources.capture import Capture, Source
from client.watching.sources.frames import Frames
from tests.client.judging.scripted_server import Script, scripted_server
from tests.client.watching.running import judge_once, names, put, watching

FRAMES, SIDE = 12, 64


def make_video(path: Path, *, frames: int = FRAMES) -> Path:
    """A video whose frames become brighter, 20 greys each."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIDE, SIDE))
    for number in range(frames):
        writer.write(np.full((SIDE, SIDE, 3), 20 * number, np.uint8))
    writer.release()
    return path


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


@pytest.fixture
def url() -> Iterator[str]:
    with scripted_server(Script()) as served:
        yield served


def test_each_frame_of_a_video_is_judged_once_whatever_ends_in_between(
    drop: Path, url: str, tmp_path: Path
) -> None:
    source = Source.of(f"video:{make_video(tmp_path / 'part 1.avi')}")
    with watching(drop, url, frames=Frames(source), destinations=Destinations(good=REMOVED)) as running:
        assert running.judges(3)
    running = judge_once(drop, url, frames=Frames(source), destinations=Destinations(good=REMOVED))
    judged = running.judged()
    assert sorted(names(judged)) == [f"{source.label}-{number:06}.png" for number in range(FRAMES)]
    scores = {Path(each.prediction.image).name: each.prediction.score for each in judged}
    assert [scores[name] for name in sorted(scores)] == pytest.approx(
        [20 * number for number in range(FRAMES)], abs=2
    )
    assert judge_once(drop, url, frames=Frames(source)).tally.judged == 0
    left = {path.name for path in drop.glob("*.png")}
    assert left == {name for name, score in scores.items() if score > 100}  # good ones were removed


def test_some_frames_and_another_video_of_the_same_name(drop: Path, url: str, tmp_path: Path) -> None:
    source = Source.of(f"video:{make_video(tmp_path / 'a.avi')}")
    running = judge_once(drop, url, frames=Frames(source, every=5))
    assert [name[-10:-4] for name in names(running.judged())] == ["000000", "000005", "000010"]
    other = Source.of(f"video:{make_video(tmp_path / 'a.avi', frames=3)}")
    assert other.label != source.label
    assert judge_once(drop, url, frames=Frames(other, fps=5)).tally.judged == 2  # of 10 frames a second


def test_a_video_that_is_none_ends_it_with_its_name(drop: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    running = judge_once(drop, url, frames=Frames(Source.of(f"video:{tmp_path / 'text.mp4'}")))
    assert "text.mp4 cannot be opened" in str(running.tally.fault)
    assert running.tally.exit_code == 2


@contextmanager
def camera(*, frames: int) -> Iterator[str]:
    """A camera on the network that sends so many pictures a connection (Motion JPEG)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(frames):
                buffer = io.BytesIO()
                Image.new("RGB", (SIDE, SIDE), (10 * number,) * 3).save(buffer, "JPEG")
                self.wfile.write(b"--frame\r\ncontent-type: image/jpeg\r\n\r\n" + buffer.getvalue() + b"\r\n")
                time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://user@127.0.0.1:{server.server_port}/line/1.mjpg"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_camera_is_opened_again_and_its_frames_are_named_by_the_time(
    drop: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.watching.sources.frames.FIRST_WAIT_S", 0.05)
    with (
        camera(frames=10) as place,
        watching(drop, url, frames=Frames(Source.of(place, password="word"))) as running,
    ):
        assert running.judges(20)
        assert running.says("gives no more pictures. It is opened again and again.")
        assert running.says("gives pictures again.")
    found = names(running.judged())
    assert len(found) == len(set(found)) >= 20
    assert all(name.startswith("127.0.0.1-line-1.mjpg-20") for name in found)
    assert "word" not in running.said


def test_a_frame_of_a_camera_that_cannot_be_decoded_is_told_and_counted(
    drop: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn, real = iter([True, True, False]), Capture.png
    monkeypatch.setattr(Capture, "png", lambda capture: None if next(torn, False) else real(capture))
    with (
        camera(frames=10) as place,
        watching(drop, url, frames=Frames(Source.of(place)), status_s=0.1) as running,
    ):
        assert running.judges(5)
        assert running.says("2 frames are lost")
    assert running.said.count("cannot be decoded; it is not judged, and is lost.") == 1
    assert "can be decoded again" in running.said
    assert (running.tally.lost, running.tally.exit_code) == (2, 2)


def test_an_error_that_nobody_foresaw_ends_the_run_with_a_sentence(
    drop: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Capture) -> bytes:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Capture, "png", fail)
    put(drop / "a.png")
    with camera(frames=10) as place, watching(drop, url, frames=Frames(Source.of(place))) as running:
        running.thread.join(10)
        assert not running.thread.is_alive()
    assert (running.tally.good, running.tally.exit_code) == (1, 2)
    assert running.tally.fault == (
        f"No more frames come from the camera {place.replace('user@', '')}: RuntimeError: no memory"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clip.avi",
        "video:",
        "video:nowhere.avi",
        "usb:",
        "usb:one",
        "rtsp://",
        "ftp://host/x",
        "video:/tmp",
    ],
)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="expected video:FILE"):
        Source.of(text)


def test_sources_of_cameras() -> None:
    source = Source.of("rtsp://user@10.0.0.7:554/stream/1?quality=best", password="wo:rd")
    assert (source.label, source.shown) == ("10.0.0.7-stream-1", "camera rtsp://10.0.0.7:554/stream/1")
    assert source.place == "rtsp://user:wo%3Ard@10.0.0.7:554/stream/1?quality=best"
    assert Source.of("usb:0").place == 0
    with pytest.raises(RequestError, match="seen by everybody"):
        Source.of("rtsp://user:word@10.0.0.7/stream")
