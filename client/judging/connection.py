"""One image in, one typed verdict out, over gRPC and within a deadline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

from client.judging.answers import Answer
from client.judging.arguments import check_category, check_threshold, check_timeout
from client.judging.asking import Asker
from client.judging.inputs import Picture
from client.judging.requests import Question
from client.judging.streams import ask_many
from client.judging.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.grpc_endpoint import Endpoint

Result = TypeVar("Result", bound=Score)
IN_FLIGHT = 4  # enough for every step of an ensemble to have work


class JudgeClient:
    """A connection to a server for one category. Use it as a context manager, and for many images.

    Several threads may ask through one client. What it says of the category follows when that is published anew.

    Attributes:
        url: host:port of the server's gRPC endpoint.
        endpoint: the same, with certificates and keys.
        category: the published product.
    """

    def __init__(
        self,
        url: Endpoint | str,
        *,
        category: str,
        timeout_s: float,
        shared_memory: bool = False,
        load: bool = False,
    ) -> None:
        """Connect and look the category up.

        Args:
            url: host:port of the server's gRPC endpoint; certificates and keys are those that the environment names
                (`Endpoint.of`), or those of an `Endpoint` in its place.
            category: a published product.
            timeout_s: deadline of every call, seconds. Within it, a request is sent again where the server refuses it,
                is being started again, or was lost before the answer; an image may be judged twice then, and has one
                verdict. At the deadline the wait ends, and not the call, which the server would not outlive.
            shared_memory: hand images and maps over through system shared memory; the server must be on this host.
            load: let the server load the category when it is not in memory, now or later (`deploy serve
                --max-categories`).

        Raises:
            RequestError: `url` is not host:port, `category` no name, `timeout_s` no number of seconds, or a
                certificate or key cannot be used.
            Unreachable, NotServed, NotAllowed: no server at `url`, the category is not published, or a key is missing.
            ServerError: the server is on another host and cannot use shared memory.
        """
        self.category = check_category(category)
        self._asker = Asker(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
        )
        self.endpoint = self._asker.endpoint
        self.url = self.endpoint.url

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the calls of other threads, free the shared memory, if any, and close the connection."""
        self._asker.close()

    @property
    def timeout_s(self) -> float:
        """Deadline of every call, seconds."""
        return self._asker.timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float) -> None:
        self._asker.timeout_s = check_timeout(timeout_s)

    @property
    def image_size(self) -> int:
        """Side of the square image that the category's networks see, pixels."""
        return self._asker.found.image_size

    @property
    def max_batch(self) -> int:
        """Images that one request may hold."""
        return self._asker.found.max_batch

    @property
    def synthetic(self) -> bool:
        """Whether the category was trained on rendered images; whatever is shown of it must say so."""
        return self._asker.found.synthetic

    @property
    def precision(self) -> str:
        """Of the graphs that are served, `fp32`, `fp16` or `int8`."""
        return self._asker.found.precision

    @property
    def preset(self) -> str:
        """That the category was trained with, `edge` or `paper`."""
        return self._asker.found.preset

    @property
    def bit_depth(self) -> int:
        """White of images with more than 8 bits a channel is 2**bit_depth - 1, as in training."""
        return self._asker.found.bit_depth

    @property
    def release_id(self) -> int:
        """Which weights judge; the verdicts carry their own."""
        return self._asker.found.release_id

    def predict(self, image: Picture, *, threshold: float | None = None) -> Verdict:
        """Ask for the verdict of one image.

        Args:
            image: a Pillow image of any mode and size, an array ([H, W] or RGB [H, W, 3] of 8 bits or of the
                category's bit depth, or uint8 RGBA [H, W, 4]) or an image file's path, resized here as in training; or
                an image file's bytes, which the server decodes and resizes.
            threshold: image threshold in place of the release's own, finite and at least 0.

        Raises:
            RequestError: a threshold that cannot be.
            ImageFileError: another kind of image, or a file or pixels that cannot be read.
            DeadlineExceeded, Overloaded, Unreachable: no answer within the deadline, or the server was overloaded or
                not there until then.
            RefusedImage: the server cannot decode the file.
            ServerError: an answer that is no verdict, or another error from the server.
        """
        return self._asker.ask(image, _question(VERDICT_OUTPUTS, threshold)).verdicts()[0]

    def score(self, image: Picture, *, threshold: float | None = None) -> Score:
        """As `predict`, without the maps: they never leave the fusion."""
        return self._asker.ask(image, _question(SCORE_OUTPUTS, threshold)).scores()[0]

    def predict_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
    ) -> Iterator[Verdict]:
        """Ask about many images without waiting for one answer before the next request.

        Args:
            images: as `predict` takes them; read no further ahead than `in_flight * batch`. Pixels and files may be
                mixed; a request holds images of one kind.
            in_flight: requests that may be on their way at a time; no more, or a fast reader floods the server. They
                become fewer while the server refuses some.
            batch: images a request, up to `max_batch`; the last request may hold fewer.
            threshold: image threshold in place of the release's own, finite and at least 0.

        Yields:
            One verdict an image, in the order of the images.

        Raises:
            ClientError: as `predict`, or a batch that the server does not take. The verdicts of all images before come
                first.
        """
        question = _question(VERDICT_OUTPUTS, threshold)
        return _each(
            ask_many(self._asker, images, question, in_flight=in_flight, batch=batch), Answer.verdicts
        )

    def score_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
    ) -> Iterator[Score]:
        """As `predict_many`, without the maps."""
        question = _question(SCORE_OUTPUTS, threshold)
        return _each(ask_many(self._asker, images, question, in_flight=in_flight, batch=batch), Answer.scores)


def _question(outputs: Sequence[str], threshold: float | None) -> Question:
    return Question(outputs, check_threshold(threshold))


def _each(answers: Generator[Answer], results_of: Callable[[Answer], list[Result]]) -> Iterator[Result]:
    """The results of all answers, one after the other."""
    with contextlib.closing(answers):
        for answer in answers:
            yield from results_of(answer)
