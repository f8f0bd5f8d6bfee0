"""One image in, one typed verdict out, over gRPC and within a deadline."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from client.judging.errors import ServerError
from client.judging.requests import Answer, Request, file_tensor, pixel_tensor
from client.judging.shared_memory import SharedRegion
from client.judging.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS
from model_repository.image_decoder.image_decoding import resize_image

UNREACHABLE = ("onnect", "resolving", "resolution")  # how gRPC tells that it got no further than the address
REFUSALS = ("maximum queue size", "timeout expired")  # how a full queue and a late request are told
UNLOADED = ("unknown model", "not ready")  # how a request for a model that has just gone is told
LOAD_TIMEOUT_S = 60.0  # a large student's graph takes seconds to open
IN_FLIGHT = 4  # enough for every step of an ensemble to have work
Picture = Image.Image | bytes  # an RGB image of any size, or an image file for the server to decode


class JudgeClient:
    """A connection to a server for one category; use it as a context manager, and for as long as there are images.

    Attributes:
        image_size: side of the square image that the category's networks see, pixels.
        max_batch: images that one request may hold.
        synthetic: the category was trained on rendered images; whatever is shown of it has to say so.
        precision: of the graphs that are served, `fp32`, `fp16` or `int8`.
        preset: that the category was trained with, `edge` or `paper`.
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
            ServerError: no server there, the category is not published, or the server sees no memory of ours.
        """
        self.url = url
        self.category = category
        self.timeout_s = timeout_s
        self._load = load
        self._client = grpcclient.InferenceServerClient(url)
        self._resources = contextlib.ExitStack()
        self._resources.callback(self._client.close)
        try:
            self.image_size, self.max_batch, parameters = self._look_up()
            self._shared_memory = shared_memory
            self._region = self._resources.enter_context(self._regions(1, batch=1))[0]
        except BaseException:
            self.close()
            raise
        self.synthetic = parameters.get("synthetic") == "true"
        self.precision = parameters.get("precision", "fp32")
        self.preset = parameters.get("preset", "")
        self.release_id = int(parameters.get("release_id", "0"))

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        names: Sequence[str],
        threshold: float | None,
        region: SharedRegion | None,
    ) -> Request:
        files = [image for image in images if isinstance(image, bytes)]
        if files:
            model, tensor = f"{self.category}_encoded", file_tensor(files)
        else:
            model = self.category
            pictures = (image for image in images if not isinstance(image, bytes))
            pixels = np.stack([resize_image(picture, self.image_size) for picture in pictures])
            tensor = pixel_tensor(pixels) if region is None else region.put(pixels)
        return Request(model, tensor, len(images), names, threshold, region)

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
        started = time.perf_counter()
        try:
            try:
                result = self._client.infer(**self._arguments(request))
            except InferenceServerException as error:
                if not self._is_unloaded(error):
                    raise
                self._load_category()
                result = self._client.infer(**self._arguments(request))
        except InferenceServerException as error:
            raise self._server_error(error) from None
        return self._answer(request, result, started)

    def _send_many(
        self,
        images: Iterable[Picture],
        names: Sequence[str],
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
        with self._regions(in_flight, batch=batch) as free:
            try:
                while chosen := list(itertools.islice(rest, batch)):
                    if not free:
                        future, answered = pending.popleft()
                        yield self._result(future, answered)
                        free.append(answered.region)
                    request = self._request(chosen, names, threshold, free.pop())
                    pending.append((self._send_later(request), request))
                while pending:
                    yield self._result(*pending.popleft())
            except InferenceServerException as error:
                raise self._server_error(error) from None
            finally:
                # The server may still write into the regions that are about to be freed.
                wait([future for future, _ in pending])

    def _send_later(self, request: Request) -> Future[Answer]:
        future: Future[Answer] = Future()
        started = time.perf_counter()

        def settle(result: grpcclient.InferResult | None, error: InferenceServerException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(self._answer(request, result, started))

        self._client.async_infer(callback=settle, **self._arguments(request))
        return future

    def _result(self, future: Future[Answer], request: Request) -> Answer:
        """What a request came to; asked again when its category had just gone out of memory."""
        try:
            return future.result()
        except InferenceServerException as error:
            if not self._is_unloaded(error):
                raise
            return self._send(request)

    def _is_unloaded(self, error: InferenceServerException) -> bool:
        return self._load and any(word in str(error.message()) for word in UNLOADED)

    def _load_category(self) -> None:
        """Both ensembles, and with them the steps that they name; no harm where they are in memory."""
        for model in (self.category, f"{self.category}_encoded"):
            self._client.load_model(model, client_timeout=max(self.timeout_s, LOAD_TIMEOUT_S))

    def _arguments(self, request: Request) -> dict[str, Any]:
        region = request.region
        # Not the requested outputs alone: an ensemble asks its last step for all of them, whoever asks the ensemble.
        parameters: dict[str, Any] = {} if "anomaly_map" in request.names else {"score_only": True}
        if request.threshold is not None:
            parameters["threshold"] = str(request.threshold)
        return {
            "model_name": request.model,
            "inputs": [request.tensor],
            "outputs": [
                region.request(name, self._map_shape(request))
                if region is not None
                else grpcclient.InferRequestedOutput(name)
                for name in request.names
            ],
            "client_timeout": self.timeout_s,
            "parameters": parameters or None,
        }

    def _answer(self, request: Request, result: grpcclient.InferResult, started: float) -> Answer:
        region = request.region
        values = {
            name: region.take(name, self._map_shape(request))
            if region is not None and name in MAP_OUTPUTS
            else result.as_numpy(name)
            for name in request.names
        }
        return Answer(values, latency_ms=1000 * (time.perf_counter() - started))

    def _map_shape(self, request: Request) -> tuple[int, int, int]:
        return request.n_images, self.image_size, self.image_size

    def _look_up(self) -> tuple[int, int, dict[str, str]]:
        """The side of the image that the ensemble takes, its largest batch, and its parameters."""
        try:
            ready = self._client.is_model_ready(self.category, client_timeout=self.timeout_s)
            if not ready and self._load and self._is_known():
                self._load_category()
            elif not ready:
                raise ServerError(self._not_published())
            answer: Any = self._client.get_model_config(self.category, client_timeout=self.timeout_s)
        except InferenceServerException as error:
            raise self._server_error(error) from None
        config = answer.config
        shapes = {tensor.name: list(tensor.dims) for tensor in config.input}
        outputs = {tensor.name for tensor in config.output}
        if "image" not in shapes or not set(VERDICT_OUTPUTS) <= outputs:
            raise ServerError(
                f"Model {self.category!r} at {self.url} takes {', '.join(sorted(shapes))} and gives "
                f"{', '.join(sorted(outputs))}; expected an ensemble published by `python -m export publish`, "
                "which takes image and gives a verdict."
            )
        parameters = {name: str(value.string_value) for name, value in config.parameters.items()}
        return int(shapes["image"][0]), int(config.max_batch_size), parameters

    def _is_known(self) -> bool:
        """Whether the category lies in the server's repository, in memory or not."""
        index = self._client.get_model_repository_index(client_timeout=self.timeout_s)
        return f"{self.category}_encoded" in {model.name for model in index.models}

    def _not_published(self) -> str:
        index = self._client.get_model_repository_index(client_timeout=self.timeout_s)
        names = {model.name for model in index.models if model.state == "READY"}
        published = sorted(name for name in names if f"{name}_encoded" in names)
        there = f"it serves {', '.join(published)}" if published else "it serves none"
        return (
            f"Category {self.category!r} is not served at {self.url}; {there}; publish it with "
            f"`make export CATEGORY={self.category}` and start the server again."
        )

    def _server_error(self, error: InferenceServerException) -> ServerError:
        status, message = str(error.status()), str(error.message())
        if "DEADLINE_EXCEEDED" in status:
            return ServerError(f"No answer from {self.url} within {self.timeout_s:g} s; is it overloaded?")
        if "UNAVAILABLE" in status and any(fault in message for fault in UNREACHABLE):
            return ServerError(f"No Triton server answers at {self.url}; start one with `make serve`.")
        if any(refusal in message for refusal in REFUSALS):
            return ServerError(
                f"The server at {self.url} is overloaded and refused the request ({message.rstrip('. ')}); send fewer "
                "at a time."
            )
        return ServerError(f"The server at {self.url} answered: {message.rstrip('. ')}.")
