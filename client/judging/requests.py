"""What goes to the server for some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from client.judging.category import ENCODED
from client.judging.inputs import Prepared
from client.judging.shared_memory import SharedRegion
from model_repository.image_decoder.image_decoding import resize_image


@dataclass(frozen=True)
class Question:
    """What is asked about images.

    Attributes:
        outputs: what to ask for, `VERDICT_OUTPUTS` or `SCORE_OUTPUTS`.
        threshold: image threshold in place of the release's own.
    """

    outputs: Sequence[str]
    threshold: float | None


@dataclass(frozen=True)
class Request:
    """A request for the verdicts of some images.

    Attributes:
        model: the ensemble.
        tensor: its one input.
        map_shape: of the anomaly maps and of the masks, [B, S, S].
        question: what to ask for.
        region: where images and maps are handed over, or None for the wire.
    """

    model: str
    tensor: grpcclient.InferInput
    map_shape: tuple[int, int, int]
    question: Question
    region: SharedRegion | None

    def arguments(self, *, timeout_s: float) -> dict[str, Any]:
        """The arguments of tritonclient's `infer` and `async_infer`."""
        # Not the requested outputs alone: an ensemble asks its last step for all of them, whoever asks the ensemble.
        parameters: dict[str, Any] = {} if "anomaly_map" in self.question.outputs else {"score_only": True}
        if self.question.threshold is not None:
            parameters["threshold"] = str(self.question.threshold)
        return {
            "model_name": self.model,
            "inputs": [self.tensor],
            "outputs": [
                grpcclient.InferRequestedOutput(name)
                if self.region is None
                else self.region.request(name, self.map_shape)
                for name in self.question.outputs
            ],
            "client_timeout": timeout_s,
            # The server refuses what still waits then: no backbone works for who has given up.
            "timeout": max(1, round(1e6 * timeout_s)),
            "parameters": parameters or None,
        }


def make_request(
    images: Sequence[Prepared],
    question: Question,
    *,
    category: str,
    image_size: int,
    region: SharedRegion | None,
) -> Request:
    """A request about images that are all files or all pictures, see `inputs.batches`."""
    files = [image for image in images if isinstance(image, bytes)]
    pictures = [image for image in images if not isinstance(image, bytes)]
    if files:
        model, tensor = category + ENCODED, file_tensor(files)
    else:
        pixels = np.stack([resize_image(picture, image_size) for picture in pictures])
        model, tensor = category, pixel_tensor(pixels) if region is None else region.put(pixels)
    map_shape = len(files) or len(pictures), image_size, image_size
    return Request(model, tensor, map_shape, question, region)


def pixel_tensor(pixels: NDArray[np.uint8]) -> grpcclient.InferInput:
    """Images [B, S, S, 3] as they go over the wire."""
    tensor = grpcclient.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    return tensor


def file_tensor(files: Sequence[bytes]) -> grpcclient.InferInput:
    """Image files as they go over the wire."""
    tensor = grpcclient.InferInput("encoded_image", [len(files), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_)[:, None])
    return tensor
