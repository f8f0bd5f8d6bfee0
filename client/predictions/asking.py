"""Ask about many image files, hand on every answer as it comes, and say how far the run came."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from PIL import Image

from client.core.errors import ClientError, ImageFileError, RefusedImage, ServerError
from client.core.inputs import FileContent
from client.core.verdicts import Failure, Score, Verdict
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.pictures.folders import ImageFile
from client.pictures.images import load_image
from client.pictures.overlays import PANEL, draw_overlay
from client.predictions.drawing import picture_paths, write_picture
from client.predictions.outcome import Asking as Asking
from client.predictions.outcome import Outcome as Outcome
from client.predictions.prediction import Prediction
from client.predictions.progress import progress_bar

Draw = Callable[[], Image.Image]  # RGB
FAILURES_IN_A_ROW = 3  # requests; by then it is the server


@dataclass(frozen=True)
class _Asked:
    """An image on its way: its size, and a small copy to draw on, for the file may be gone when the answer comes."""

    image: ImageFile
    size: tuple[int, int]
    preview: Image.Image | None


class _Queue:
    """The images of a run: `waiting` to be read, then `asked` about and in order until their answers come."""

    def __init__(
        self,
        judge: JudgeClient,
        images: Sequence[ImageFile],
        *,
        asking: Asking,
        previews: bool,
        stop: threading.Event,
        outcome: Outcome,
    ) -> None:
        self._judge, self._asking, self._previews, self._stop = judge, asking, previews, stop
        self._outcome = outcome
        self.waiting = deque(images)
        self.asked: deque[_Asked] = deque()
        self.missed: deque[tuple[Path, str]] = deque()  # and why; to be handed on

    def ask(self) -> Iterator[Score | Failure]:
        """Ask about all that wait; the next ones are read while the server judges."""
        asking = self._asking
        in_flight, batch, threshold = asking.in_flight, asking.batch, asking.threshold
        if asking.score_only:
            return self._judge.score_many(
                self._readable(), in_flight=in_flight, batch=batch, threshold=threshold, on_error="return"
            )
        return self._judge.judge_many(
            self._readable(),
            in_flight=in_flight,
            batch=batch,
            threshold=threshold,
            min_area=asking.min_area,
            on_error="return",
        )

    def unanswered(self) -> Iterator[ImageFile]:
        """The images without an answer, in their order."""
        yield from (asked.image for asked in self.asked)
        yield from self.waiting

    def hand_on_missed(self, miss: Callable[[Path, str], None]) -> None:
        """Say which images get no verdict, and why; each once."""
        while self.missed:
            miss(*self.missed.popleft())

    def _readable(self) -> Iterator[Image.Image | bytes]:
        """What is sent of each image; a broken file is named, and not sent."""
        while self.waiting and not self._stop.is_set():
            image = self.waiting.popleft()
            try:
                picture = load_image(image.path, bit_depth=self._judge.bit_depth)
                encoded = _content(image.path) if self._asking.encoded else None
            except ImageFileError as error:
                self._break(image.path, error.message)
            except OSError as error:  # it has vanished between the two
                self._break(image.path, f"{image.path} cannot be read ({error.strerror}).")
            else:
                self.asked.append(_Asked(image, picture.size, _small(picture) if self._previews else None))
                yield picture if encoded is None else encoded

    def _break(self, path: Path, sentence: str) -> None:
        """An image cannot be read; of a folder that has vanished one sentence tells, and not one an image."""
        if os.path.isdir(path.parent):  # noqa: PTH112 (a path's own raises where it may not look)
            self._outcome.broken.append(sentence)
        else:
            self._outcome.vanished[path.parent] += 1
        self.missed.append((path, sentence))


def _content(path: Path) -> FileContent:
    content = FileContent(path.read_bytes())
    content.filename = str(path)
    return content


def predict_images(
    judge: JudgeClient,
    images: Sequence[ImageFile],
    *,
    asking: Asking,
    overlays_dir: Path | None,
    keep: Callable[[Prediction], None] = lambda _: None,
    miss: Callable[[Path, str], None] = lambda _image, _reason: None,
    show: Callable[[Prediction, Draw], None] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Ask about image files.

    An image that cannot be judged costs no other one its verdict, and a request that fails only its own images.
    FAILURES_IN_A_ROW stop the run, unless the server refused the images themselves, and so do a disk that takes no more
    answers and KeyboardInterrupt; the answers before that are in the outcome.

    Args:
        judge: the category.
        images: the files.
        asking: how to ask.
        overlays_dir: where pictures of the verdicts are written, unless it is None.
        keep: is given every answer as it comes, in the order of the images.
        miss: is given every image that gets no verdict, and why, once the answers before it have come.
        show: is given every answer, and what draws its picture, or of `score_only` the small image; before `keep`.
        stop: once it is set, no further image is asked about; the answers on their way are awaited.

    Raises:
        ClientError: nothing can be asked in this way, whatever the images.
    """
    stop = stop or threading.Event()
    pictures = picture_paths(images, overlays_dir) if overlays_dir and not asking.score_only else {}
    outcome = Outcome(len(images))
    previews = bool(pictures) or show is not None
    queue = _Queue(judge, images, asking=asking, previews=previews, stop=stop, outcome=outcome)
    with progress_bar() as progress:
        bar = progress.add_task("Judging", total=len(images))
        try:
            for asked, verdict in _answered(queue, outcome):
                queue.hand_on_missed(miss)
                draw = cache(partial(_draw, asked, verdict, synthetic=judge.synthetic))
                overlay = _write(pictures.get(asked.image.path), draw, outcome)
                prediction = _prediction(judge, asked, verdict, overlay)
                if show is not None:
                    show(prediction, draw)
                keep(prediction)
                outcome.predictions.append(prediction)
                progress.update(bar, completed=outcome.n_done)
            queue.hand_on_missed(miss)
        except KeyboardInterrupt:
            outcome.stopped = "Interrupted."
        except (ClientError, StorageError) as error:
            if len(queue.waiting) == len(images):
                raise
            outcome.stopped = error.message
    with suppress(StorageError):  # of a run that has stopped, for whatever reason
        queue.hand_on_missed(miss)
    _say_how_far(queue, outcome, interrupted=stop.is_set())
    return outcome


def _say_how_far(queue: _Queue, outcome: Outcome, *, interrupted: bool) -> None:
    if queue.waiting and interrupted:
        outcome.stopped = outcome.stopped or "Interrupted."
    if outcome.stopped and outcome.next_image is None:
        outcome.next_image = next((image.path for image in queue.unanswered()), None)


def _answered(queue: _Queue, outcome: Outcome) -> Iterator[tuple[_Asked, Score]]:
    """Every image that is answered, with its answer; those without one are named in the outcome.

    Raises:
        ClientError: FAILURES_IN_A_ROW, or one that concerns no image.
    """
    failures: list[tuple[list[Path], str]] = []  # of requests, since the last answer
    error: ClientError | None = None  # the last one
    for result in queue.ask():
        if not isinstance(result, Failure):
            _leave_unanswered(failures, queue, outcome)
            failures.clear()
            yield queue.asked[0], result
            queue.asked.popleft()
            continue
        path = queue.asked.popleft().image.path
        if isinstance(result.error, RefusedImage) or not isinstance(result.error, ServerError):
            _leave_unanswered([([path], result.message)], queue, outcome)
        elif failures and result.error is error:  # images of one request fail together
            failures[-1][0].append(path)
        else:
            failures.append(([path], result.message))
        error = result.error
        if len(failures) == FAILURES_IN_A_ROW:
            outcome.next_image = failures[0][0][0]
            raise ServerError(failures[0][1])  # the first says best what happened
    failures.append(([asked.image.path for asked in queue.asked], "no answer came."))
    _leave_unanswered(failures, queue, outcome)


def _leave_unanswered(failures: list[tuple[list[Path], str]], queue: _Queue, outcome: Outcome) -> None:
    """Name images whose requests failed while others were answered."""
    unanswered = [(path, message) for paths, message in failures for path in paths]
    outcome.unanswered += [f"{path} was not judged: {message}" for path, message in unanswered]
    queue.missed += unanswered


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((PANEL, PANEL), Image.Resampling.BILINEAR)  # as `draw_overlay` would


def _prediction(judge: JudgeClient, asked: _Asked, verdict: Score, overlay: str | None) -> Prediction:
    return Prediction.of(
        verdict,
        image=str(asked.image.path),
        category=judge.category,
        synthetic=judge.synthetic,
        defect=asked.image.defect,
        overlay=overlay,
        size=asked.size,
    )


def _draw(asked: _Asked, verdict: Score, *, synthetic: bool) -> Image.Image:
    """The picture of a verdict, or of a score the small image, which was kept where pictures are wanted."""
    if asked.preview is None:
        raise ValueError(f"no preview of {asked.image.path} was kept")
    if not isinstance(verdict, Verdict):
        return asked.preview
    return draw_overlay(asked.preview, verdict, synthetic=synthetic)


def _write(path: Path | None, draw: Draw, outcome: Outcome) -> str | None:
    """Write a picture, unless none are wanted. The first that fails is the last: answers go on."""
    if path is None or outcome.no_pictures:
        return None
    try:
        write_picture(path, draw())
    except StorageError as error:
        outcome.no_pictures = error.message
        return None
    return str(path)
