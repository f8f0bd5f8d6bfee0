"""One image in, one typed verdict out, over gRPC and within a deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from client.errors import ServerError
from model_repository.image_decoder.image_decoding import resize_image

UNREACHABLE = ("onnect", "resolving", "resolution")  # how gRPC tells that it got no further than the address
OUTPUTS = ("anomaly_map", "pred_score", "pred_label", "pred_mask", "threshold", "release_id")


@dataclass(frozen=True)
class Verdict:
    """What the server says of one image, whose side it sees as S pixels.

    Attributes:
        score: maximum of the anomaly map.
        threshold: an image whose score exceeds it is anomalous.
        anomalous: the label.
        release_id: which weights judged it.
        anomaly_map: [S, S] float32.
        mask: [S, S] bool; where the anomaly exceeds the pixel threshold.
        latency_ms: from sending the request to having the answer, milliseconds.
    """

    score: float
    threshold: float
    anomalous: bool
    release_id: int
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    latency_ms: float


class JudgeClient:
    """A connection to a server for one category; use it as a context manager.

    Attributes:
        image_size: side of the square image that the category's networks see, pixels.
        synthetic: the category was trained on rendered images; whatever is shown of it has to say so.
        precision: of the graphs that are served, `fp32`, `fp16` or `int8`.
    """

    def __init__(self, url: str, *, category: str, timeout_s: float) -> None:
        """Connect and look the category up.

        Args:
            url: host:port of the server's gRPC endpoint.
            category: a published product.
            timeout_s: deadline of every call, seconds.

        Raises:
            ServerError: no server there, or the category is not published.
        """
        self.url = url
        self.category = category
        self.timeout_s = timeout_s
        self._client = grpcclient.InferenceServerClient(url)
        try:
            self.image_size, self.synthetic, self.precision = self._look_up()
        except ServerError:
            self.close()
            raise

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def predict(self, image: Image.Image, *, threshold: float | None = None) -> Verdict:
        """Resize an RGB image as in training and ask for its verdict.

        Args:
            image: RGB, any size.
            threshold: image threshold in place of the release's own.

        Raises:
            ServerError: no answer within the deadline, or an error from the server.
        """
        pixels = resize_image(image, self.image_size)[None]  # [1, S, S, 3]
        tensor = grpcclient.InferInput("image", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        return self._ask(self.category, tensor, threshold)

    def predict_encoded(self, encoded: bytes, *, threshold: float | None = None) -> Verdict:
        """Send an image file as it is and let the server decode it.

        Raises:
            ServerError: as `predict`; also when the server cannot decode it.
        """
        tensor = grpcclient.InferInput("encoded_image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[encoded]], dtype=np.object_))
        return self._ask(f"{self.category}_encoded", tensor, threshold)

    def _ask(self, model: str, tensor: grpcclient.InferInput, threshold: float | None) -> Verdict:
        started = time.perf_counter()
        try:
            answer = self._client.infer(
                model,
                [tensor],
                outputs=[grpcclient.InferRequestedOutput(name) for name in OUTPUTS],
                client_timeout=self.timeout_s,
                parameters=None if threshold is None else {"threshold": str(threshold)},
            )
        except InferenceServerException as error:
            raise self._server_error(error) from None
        latency_ms = 1000 * (time.perf_counter() - started)
        values = {name: answer.as_numpy(name)[0] for name in OUTPUTS}
        return Verdict(
            score=float(values["pred_score"][0]),
            threshold=float(values["threshold"][0]),
            anomalous=bool(values["pred_label"][0]),
            release_id=int(values["release_id"][0]),
            anomaly_map=values["anomaly_map"],
            mask=values["pred_mask"],
            latency_ms=latency_ms,
        )

    def _look_up(self) -> tuple[int, bool, str]:
        """The side of the image that the ensemble takes, whether it was trained on rendered images, its precision."""
        try:
            ready = self._client.is_model_ready(self.category, client_timeout=self.timeout_s)
            if not ready:
                raise ServerError(self._not_published())
            answer: Any = self._client.get_model_config(self.category, client_timeout=self.timeout_s)
        except InferenceServerException as error:
            raise self._server_error(error) from None
        config = answer.config
        shapes = {tensor.name: list(tensor.dims) for tensor in config.input}
        outputs = {tensor.name for tensor in config.output}
        if "image" not in shapes or not set(OUTPUTS) <= outputs:
            raise ServerError(
                f"Model {self.category!r} at {self.url} takes {', '.join(sorted(shapes))} and gives "
                f"{', '.join(sorted(outputs))}; expected an ensemble published by `python -m export publish`, "
                "which takes image and gives a verdict."
            )
        parameters = config.parameters
        precision = parameters["precision"].string_value or "fp32"
        return int(shapes["image"][0]), parameters["synthetic"].string_value == "true", str(precision)

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
        return ServerError(f"The server at {self.url} answered: {message.rstrip('. ')}.")
