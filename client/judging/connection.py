"""One image in, one typed verdict out, over gRPC and within a deadline."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait

import numpy as np
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from client.judging.category import ENCODED, find_category, load_category
from client.judging.errors import ServerError, server_error
from client.judging.requests import Answer, Request, file_tensor, pixel_tensor
from client.judging.shared_memory import SharedRegion
from client.judging.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.grpc_channel import open_channel
from model_repository.image_decoder.image_decoding import resize_image

UNLOADED = ("unknown model", "not ready")  # in Triton's message about a model that has just been unloaded
IN_FLIGHT = 4  # enough for every step of an ensemble to have work
Picture = Image.Image | bytes  # an RGB image of any size, or an image file for the server to decode


class JudgeClient:
    """A connection to a server for one category. Use it as a context manager, and for many images.

    Attributes:
        image_size: side of the square image that the category's networks see, pixels.
        max_batch: images that one request may hold.
        synthetic: the category was trained on rendered images; whatever is shown of it must say so.
        precision: of the graphs that are served, `fp32`, `fp16` or `int8`.
        preset: that the category was trained with, `edge` or `paper`.
        bit_depth: white of images with more than 8 bits a channel is 2**bit_depth - 1, as in training.
        release_id: which weights judge; the verdicts carry their own.
    """

    def __init__(
        self, url: str, *, category: str, timeout_s: float, shared_memory: bool = False, load: bool = False
    ) -> None:
        """Connect and look the category up.

        Args:
            url: host:port of the server's gRPC endpoint.
            category: a published product.
            timeout_s: deadline of every call, seconds.
            shared_memory: hand images and maps over through system shared memory; the server must be on this host.
            load: let the server load the category when it is not in memory, now or later (`deploy serve
                --max-categories`).

        Raises:
            ServerError: no server at `url`, the category is not published, or the server is on another host and
                cannot use shared memory.
        """
        self.url = url
        self.category = category
        self.timeout_s = timeout_s
        self._load = load
        self._shared_memory = shared_memory
        self._client = open_channel(url)
        with contextlib.ExitStack() as resources, self._named_errors():
            resources.callback(self._client.close)
            self.image_size, self.max_batch, parameters = find_category(
                self._client, category, url=url, timeout_s=timeout_s, load=load
            )
            self._region = resources.enter_context(self._regions(1, batch=1))[0]
            self._resources = resources.pop_all()
        self.synthetic = parameters.get("synthetic") == "true"
        self.precision = parameters.get("precision", "fp32")
        self.preset = parameters.get("preset", "")
        self.bit_depth = int(parameters.get("bit_depth", "8"))
        self.release_id = int(parameters.get("release_id", "0"))

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the shared memory, if any, and close the connection."""
        self._resources.close()

    def predict(self, image: Picture, *, threshold: float | None = None) -> Verdict:
        """Ask for the verdict of one image.

        Args:
            image: RGB, any size, resized here as in training; or an image file, which the server decodes and resizes.
            threshold: image threshold in place of the release's own.

        Raises:
            ServerError: no answer within the deadline, or an error from the server; it may be unable to decode a file.
        """
        return self._send(self._request([image], VERDICT_OUTPUTS, threshold, self._region)).verdicts()[0]

    def score(self, image: Picture, *, threshold: float | None = None) -> Score:
        """As `predict`, without the maps: they never leave the fusion."""
        return self._send(self._request([image], SCORE_OUTPUTS, threshold, self._region)).scores()[0]

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
            images: as `predict` takes them, all of one kind; read no further ahead than `in_flight * batch`.
            in_flight: requests that may be on their way at a time; no more, or a fast reader floods the server.
            batch: images a request, up to `max_batch`; the last request may hold fewer.
            threshold: image threshold in place of the release's own.

        Yields:
            The verdicts, in the order of the images.

        Raises:
            ServerError: as `predict`, or a batch that the server does not take.
        """
        for answer in self._send_many(
            images, VERDICT_OUTPUTS, in_flight=in_flight, batch=batch, threshold=threshold
        ):
            yield from answer.verdicts()

    def score_many(
        self,
        images: Iterable[Picture],
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
    ) -> Iterator[Score]:
        """As `predict_many`, without the maps."""
        for answer in self._send_many(
            images, SCORE_OUTPUTS, in_flight=in_flight, batch=batch, threshold=threshold
        ):
            yield from answer.scores()

    def _request(
        self,
        images: Sequence[Picture],
        outputs: Sequence[str],
        threshold: float | None,
        region: SharedRegion | None,
    ) -> Request:
        files = [image for image in images if isinstance(image, bytes)]
        if files:
            model, tensor = self.category + ENCODED, file_tensor(files)
        else:
            model = self.category
            pictures = (image for image in images if not isinstance(image, bytes))
            pixels = np.stack([resize_image(picture, self.image_size) for picture in pictures])
            tensor = pixel_tensor(pixels) if region is None else region.put(pixels)
        map_shape = len(images), self.image_size, self.image_size
        return Request(model, tensor, map_shape, outputs, threshold, region)

    @contextlib.contextmanager
    def _regions(self, count: int, *, batch: int) -> Iterator[list[SharedRegion | None]]:
        """`count` regions for one request each, or as many Nones where the wire is used."""
        if not self._shared_memory:
            yield [None] * count
            return
        with contextlib.ExitStack() as stack:
            regions: list[SharedRegion | None] = []
            for _ in range(count):
                try:
                    region = SharedRegion(
                        self._client, batch=batch, image_size=self.image_size, timeout_s=self.timeout_s
                    )
                except InferenceServerException as error:
                    raise ServerError(
                        f"The server at {self.url} does not see this host's shared memory ({error.message()}); "
                        "ask without it, or run the client where the server's /dev/shm is."
                    ) from None
                stack.callback(region.close)
                regions.append(region)
            yield regions

    def _send(self, request: Request) -> Answer:
        started_s = time.perf_counter()
        arguments = request.arguments(timeout_s=self.timeout_s)
        with self._named_errors():
            try:
                result = self._client.infer(**arguments)
            except InferenceServerException as error:
                if not self._is_unloaded(error):
                    raise
                load_category(self._client, self.category, timeout_s=self.timeout_s)
                result = self._client.infer(**arguments)
        return request.answer(result, started_s=started_s)

    def _send_many(
        self,
        images: Iterable[Picture],
        outputs: Sequence[str],
        *,
        in_flight: int,
        batch: int,
        threshold: float | None,
    ) -> Iterator[Answer]:
        """Answers in the order of the images, `in_flight` requests on their way at most."""
        if batch > self.max_batch:
            raise ServerError(
                f"Category {self.category!r} at {self.url} takes batches of up to {self.max_batch} images, and "
                f"{batch} were asked for; give a smaller batch, or publish it with --max-batch-size {batch}."
            )
        rest = iter(images)
        pending: deque[tuple[Future[Answer], Request]] = deque()
        with self._regions(in_flight, batch=batch) as free, self._named_errors():
            try:
                while chosen := list(itertools.islice(rest, batch)):
                    if not free:
                        future, answered = pending.popleft()
                        yield self._result(future, answered)
                        free.append(answered.region)
                    request = self._request(chosen, outputs, threshold, free.pop())
                    pending.append((self._send_later(request), request))
                while pending:
                    yield self._result(*pending.popleft())
            finally:
                # The server may still write into the regions that are about to be freed.
                wait([future for future, _ in pending])

    def _send_later(self, request: Request) -> Future[Answer]:
        future: Future[Answer] = Future()
        started_s = time.perf_counter()

        def settle(result: grpcclient.InferResult | None, error: InferenceServerException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(request.answer(result, started_s=started_s))

        self._client.async_infer(callback=settle, **request.arguments(timeout_s=self.timeout_s))
        return future

    def _result(self, future: Future[Answer], request: Request) -> Answer:
        """The answer to a request, which is sent again when its category had just been unloaded."""
        try:
            return future.result()
        except InferenceServerException as error:
            if not self._is_unloaded(error):
                raise
            return self._send(request)

    def _is_unloaded(self, error: InferenceServerException) -> bool:
        return self._load and any(word in str(error.message()) for word in UNLOADED)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn the errors of calls into what they mean."""
        try:
            yield
        except InferenceServerException as error:
            raise server_error(error, url=self.url, timeout_s=self.timeout_s) from None
