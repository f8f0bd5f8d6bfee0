"""Ask about many image files, hand on every answer as it comes, and say how far the run came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.progress import Progress

from client.console import console
from client.core.errors import ClientError, ImageFileError, RefusedImage, ServerError
from client.core.verdicts import Score, Verdict
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.judging.served import IN_FLIGHT
from client.pictures.folders import ImageFile
from client.pictures.images import load_image
from client.pictures.overlays import PANEL
from client.predictions.drawing import picture_paths, write_picture
from client.predictions.prediction import Prediction

FAILURES_IN_A_ROW = 3  # requests; by then it is the server


@dataclass(frozen=True)
class Asking:
    """How images are asked about.

    Attributes:
        encoded: send the files as they are, for the server to decode.
        score_only: ask for no maps; there are no overlays then.
        in_flight: requests that may be on their way at a time.
        batch: images a request.
        threshold: image threshold in place of the release's own.
    """

    encoded: bool = False
    score_only: bool = False
    in_flight: int = IN_FLIGHT
    batch: int = 1
    threshold: float | None = None


@dataclass
class Outcome:
    """How far a run came; filled while it goes on.

    Attributes:
        n_images: that were to be judged.
        predictions: the answers, in the order of the images.
        broken: one sentence for each image that cannot be read.
        unanswered: one sentence for each image whose request failed while others were answered.
        no_pictures: why pictures are missing; None where none are.
        stopped: why the run ended before its last image; None where it did not.
        next_image: the first one without an answer, where the run stopped and it is known.
    """

    n_images: int
    predictions: list[Prediction] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    no_pictures: str | None = None
    stopped: str | None = None
    next_image: Path | None = None


@dataclass(frozen=True)
class _Asked:
    """An image on its way, and a small copy to draw on: the file may be gone when the answer comes."""

    image: ImageFile
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
    ) -> None:
        self._judge, self._asking, self._previews, self._stop = judge, asking, previews, stop
        self.waiting = deque(images)
        self.asked: deque[_Asked] = deque()
        self.broken: list[str] = []

    def ask(self) -> Iterator[Score]:
        """Ask about all that wait; the next ones are read while the server judges."""
        asking = self._asking
        ask = self._judge.score_many if asking.score_only else self._judge.judge_many
        return ask(
            self._readable(), in_flight=asking.in_flight, batch=asking.batch, threshold=asking.threshold
        )

    def unanswered(self) -> Iterator[ImageFile]:
        """The images without an answer, in their order."""
        yield from (asked.image for asked in self.asked)
        yield from self.waiting

    def drop_request(self) -> list[Path]:
        """Take out the images of the request that failed, which is the oldest; those after it wait again."""
        size = min(self._asking.batch, len(self.asked))
        failed = [self.asked.popleft().image.path for _ in range(size)]
        self.waiting.extendleft(asked.image for asked in reversed(self.asked))
        self.asked.clear()
        return failed

    def _readable(self) -> Iterator[Image.Image | bytes]:
        """What is sent of each image; a broken file is named, and not sent."""
        while self.waiting and not self._stop.is_set():
            image = self.waiting.popleft()
            try:
                picture = load_image(image.path, bit_depth=self._judge.bit_depth)
                encoded = image.path.read_bytes() if self._asking.encoded else None
            except ImageFileError as error:
                self.broken.append(error.message)
            except OSError as error:  # it has vanished between the two
                self.broken.append(f"{image.path} cannot be read ({error.strerror}).")
            else:
                self.asked.append(_Asked(image, _small(picture) if self._previews else None))
                yield picture if encoded is None else encoded


def predict_images(
    judge: JudgeClient,
    images: Sequence[ImageFile],
    *,
    asking: Asking,
    overlays_dir: Path | None,
    keep: Callable[[Prediction], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Ask about image files.

    A request that fails costs its own images the verdict, and the run goes on. FAILURES_IN_A_ROW stop it, unless the
    server refused the images themselves, and so do a
    disk that takes no more answers and KeyboardInterrupt; the answers before that are in the outcome.

    Args:
        judge: the category.
        images: the files.
        asking: how to ask.
        overlays_dir: where pictures of the verdicts are written, unless it is None.
        keep: is given every answer as it comes, in the order of the images.
        stop: once it is set, no further image is asked about; the answers on their way are awaited.

    Raises:
        ClientError: nothing can be asked in this way, whatever the images.
    """
    stop = stop or threading.Event()
    pictures = picture_paths(images, overlays_dir) if overlays_dir else {}
    queue = _Queue(judge, images, asking=asking, previews=bool(pictures), stop=stop)
    outcome = Outcome(len(images), broken=queue.broken)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Asking", total=len(images))
        try:
            for asked, verdict in _answered(queue, outcome):
                picture = _draw(asked, verdict, pictures, outcome, synthetic=judge.synthetic)
                prediction = _prediction(judge, asked.image, verdict, picture)
                keep(prediction)
                outcome.predictions.append(prediction)
                progress.update(bar, completed=len(outcome.predictions) + len(outcome.broken))
        except KeyboardInterrupt:
            outcome.stopped = "Interrupted."
        except (ClientError, StorageError) as error:
            if len(queue.waiting) == len(images):
                raise
            outcome.stopped = error.message
    if queue.waiting and stop.is_set():
        outcome.stopped = outcome.stopped or "Interrupted."
    if outcome.stopped and outcome.next_image is None:
        outcome.next_image = next((image.path for image in queue.unanswered()), None)
    return outcome


def _answered(queue: _Queue, outcome: Outcome) -> Iterator[tuple[_Asked, Score]]:
    """Every image that is answered, with its answer; requests that fail are named in the outcome.

    Raises:
        ClientError: FAILURES_IN_A_ROW, or one that concerns no image.
    """
    failures: list[tuple[list[Path], str]] = []  # since the last answer
    while True:
        try:
            for verdict in queue.ask():
                outcome.unanswered += _sentences(failures)
                failures.clear()
                yield queue.asked[0], verdict
                queue.asked.popleft()
            failures.append(([asked.image.path for asked in queue.asked], "no answer came."))
            outcome.unanswered += _sentences(failures)
            return
        except RefusedImage as error:
            refused = queue.drop_request()
            if not refused:
                raise
            outcome.unanswered += _sentences([(refused, error.message)])
        except ServerError as error:
            failures.append((queue.drop_request(), error.message))
            if not failures[-1][0] or len(failures) == FAILURES_IN_A_ROW:
                outcome.next_image = next((path for paths, _ in failures for path in paths), None)
                raise ServerError(failures[0][1]) from None  # the first says best what happened


def _sentences(failures: list[tuple[list[Path], str]]) -> list[str]:
    return [f"{path} was not judged: {message}" for paths, message in failures for path in paths]


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((PANEL, PANEL), Image.Resampling.BILINEAR)  # as `draw_overlay` would


def _draw(
    asked: _Asked, verdict: Score, pictures: dict[Path, Path], outcome: Outcome, *, synthetic: bool
) -> str | None:
    """Write the picture of a verdict, unless none are wanted. The first that fails is the last: answers go on."""
    if asked.preview is None or not isinstance(verdict, Verdict) or outcome.no_pictures:
        return None
    path = pictures[asked.image.path]
    try:
        write_picture(path, image=asked.preview, verdict=verdict, synthetic=synthetic)
    except StorageError as error:
        outcome.no_pictures = error.message
        return None
    return str(path)


def _prediction(judge: JudgeClient, image: ImageFile, verdict: Score, picture: str | None) -> Prediction:
    return Prediction(
        image=str(image.path),
        category=judge.category,
        defect=image.defect,
        score=verdict.score,
        threshold=verdict.threshold,
        anomalous=verdict.anomalous,
        release_id=verdict.release_id,
        latency_ms=round(verdict.latency_ms, 3),
        synthetic=judge.synthetic,
        overlay=picture,
    )
