"""One image in, one typed verdict out, over gRPC and within a deadline; the caller waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, overload

from client.core.inputs import Picture
from client.core.requests import Question
from client.core.verdicts import Failure, Score, Verdict
from client.judging.served import (
    IN_FLIGHT,
    OnError,
    ServedCategory,
    check_many_options,
    score_question,
    verdict_question,
)
from client.judging.steps import run
from client.judging.streams import ask_many
from model_repository.grpc_endpoint import Endpoint


class JudgeClient(ServedCategory):
    """A connection to a server for one category. Use it as a context manager, and for many images.

    Several threads may ask through one client. What it says of the category follows when that is published anew, and
    what it asks does too: a release that takes images of another size is asked with those.

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
        probe: bool = False,
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
            probe: the images are no parts, of a benchmark say: the server's metrics do not count them.

        Raises:
            RequestError: `url` is not host:port, `category` no name, `timeout_s` no number of seconds, or a
                certificate or key cannot be used.
            Unreachable, NotServed, NotAllowed: no server at `url`, the category is not published, or a key is missing.
            ServerError: the server is on another host and cannot use shared memory.
        """
        super().__init__(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load, probe=probe
        )
        try:
            self._asker.connect()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the calls of other threads, free the shared memory, if any, and close the connection."""
        self._asker.close()

    def judge(self, image: Picture, *, threshold: float | None = None, min_area: int = 0) -> Verdict:
        """Ask for the verdict of one image.

        Args:
            image: an image file's path, a Pillow image of any mode and size, or an array (uint8 [H, W], RGB [H, W, 3]
                or RGBA [H, W, 4], or grey or RGB of the category's bit depth), resized here as in training; or an image
                file's bytes, which the server decodes and resizes.
            threshold: image threshold in place of the release's own, finite and at least 0.
            min_area: `Verdict.defects` leaves out those of fewer pixels of the image.

        Raises:
            RequestError: a threshold or an area that cannot be.
            ImageTypeError: another kind of image; a TypeError that says what fits.
            ImageFileError: a file or pixels that cannot be read.
            DeadlineExceeded, Overloaded, Unreachable: no answer within the deadline, or the server was overloaded or
                not there until then.
            RefusedImage: the server cannot decode the file.
            ServerError: an answer that is no verdict, or another error from the server.
        """
        question = verdict_question(threshold, min_area, probe=self._probe)
        with self._asker.calls.one_more():
            return run(self._asker.ask_one(image, question)).verdicts()[0]

    def score(self, image: Picture, *, threshold: float | None = None) -> Score:
        """As `judge`, without the maps: they never leave the fusion."""
        question = score_question(threshold, probe=self._probe)
        with self._asker.calls.one_more():
            return run(self._asker.ask_one(image, question)).scores()[0]

    @overload
    def judge_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        min_area: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> Iterator[Verdict]: ...

    @overload
    def judge_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        min_area: int = ...,
        on_error: Literal["return"],
    ) -> Iterator[Verdict | Failure]: ...

    def judge_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
        min_area: int = 0,
        on_error: OnError = "raise",
    ) -> Iterator[Verdict | Failure]:
        """Ask about many images without waiting for one answer before the next request.

        Args:
            images: as `judge` takes them; read no further ahead than `in_flight * batch`. Pixels and files may be
                mixed; a request holds images of one kind.
            in_flight: requests that may be on their way at a time; no more, or a fast reader floods the server. They
                become fewer while the server refuses some.
            batch: images a request, up to `max_batch`; the last request may hold fewer.
            threshold, min_area: as `judge` takes them.
            on_error: what becomes of an image that cannot be read or judged. `raise` ends the stream with its error,
                after the verdicts of all requests before it. `return` gives a `Failure` in its place and goes on, with
                the others of its batch too; a server that is gone gives one an image until the caller stops.

        Yields:
            One verdict an image, or its failure, in the order of the images.

        Raises:
            ClientError: as `judge`, or a batch that the server does not take.
        """
        return self._many(
            images, verdict_question(threshold, min_area, probe=self._probe), in_flight, batch, on_error
        )

    @overload
    def score_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        on_error: Literal["raise"] = ...,
    ) -> Iterator[Score]: ...

    @overload
    def score_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        on_error: Literal["return"],
    ) -> Iterator[Score | Failure]: ...

    def score_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Score | Failure]:
        """As `judge_many`, without the maps."""
        return self._many(images, score_question(threshold, probe=self._probe), in_flight, batch, on_error)

    def _many(
        self, images: Iterable[Picture], question: Question, in_flight: int, batch: int, on_error: str
    ) -> Iterator[Any]:
        many = check_many_options(in_flight, batch, on_error)
        return ask_many(self._asker, images, question, many)
