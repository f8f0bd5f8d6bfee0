"""What goes to the server for some images, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from client.judging.shared_memory import SharedRegion
from client.judging.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS


@dataclass(frozen=True)
class Request:
    """A request for the verdicts of some images.

    Attributes:
        model: the ensemble.
        tensor: its one input.
        map_shape: of the anomaly maps and of the masks, [B, S, S].
        outputs: what to ask for, `VERDICT_OUTPUTS` or `SCORE_OUTPUTS`.
        threshold: image threshold in place of the release's own.
        region: where images and maps are handed over, or None for the wire.
    """

    model: str
    tensor: grpcclient.InferInput
    map_shape: tuple[int, int, int]
    outputs: Sequence[str]
    threshold: float | None
    region: SharedRegion | None

    def arguments(self, *, timeout_s: float) -> dict[str, Any]:
        """The arguments of tritonclient's `infer` and `async_infer`."""
        # Not the requested outputs alone: an ensemble asks its last step for all of them, whoever asks the ensemble.
        parameters: dict[str, Any] = {} if "anomaly_map" in self.outputs else {"score_only": True}
        if self.threshold is not None:
            parameters["threshold"] = str(self.threshold)
        return {
            "model_name": self.model,
            "inputs": [self.tensor],
            "outputs": [
                grpcclient.InferRequestedOutput(name)
                if self.region is None
                else self.region.request(name, self.map_shape)
                for name in self.outputs
            ],
            "client_timeout": timeout_s,
            "parameters": parameters or None,
        }

    def answer(self, result: grpcclient.InferResult, *, started_s: float) -> Answer:
        """The outputs of a result, whose request was sent at `started_s` of `time.perf_counter`."""
        values = {
            name: self.region.take(name, self.map_shape)
            if self.region is not None and name in MAP_OUTPUTS
            else result.as_numpy(name)
            for name in self.outputs
        }
        return Answer(values, latency_ms=1000 * (time.perf_counter() - started_s))


@dataclass(frozen=True)
class Answer:
    """What came back: an array [B, ...] an output, and milliseconds from sending to having it."""

    values: dict[str, NDArray[Any]]
    latency_ms: float

    def scores(self) -> list[Score]:
        """The verdict of every image without its maps."""
        columns = (self.values[name][:, 0].tolist() for name in SCORE_OUTPUTS)
        return [
            Score(
                score=score,
                threshold=threshold,
                anomalous=anomalous,
                release_id=release_id,
                latency_ms=self.latency_ms,
            )
            for score, anomalous, threshold, release_id in zip(*columns, strict=True)
        ]

    def verdicts(self) -> list[Verdict]:
        """The verdict of every image."""
        maps, masks = (self.values[name] for name in MAP_OUTPUTS)
        return [
            Verdict(**vars(score), anomaly_map=anomaly_map, mask=mask)
            for score, anomaly_map, mask in zip(self.scores(), maps, masks, strict=True)
        ]


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
