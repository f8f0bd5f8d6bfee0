"""What comes back from the server, checked: a verdict for every image, or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from client.judging.errors import AnswerError
from client.judging.requests import Request
from client.judging.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS

TYPES = {
    "anomaly_map": "FP32",
    "pred_score": "FP32",
    "pred_label": "BOOL",
    "pred_mask": "BOOL",
    "threshold": "FP32",
    "release_id": "INT64",
}


@dataclass(frozen=True)
class Answer:
    """What came back: an array [B, ...] an output, and milliseconds from sending to having it."""

    values: dict[str, NDArray[Any]]
    latency_ms: float

    @property
    def release_id(self) -> int:
        """The release that judged."""
        return int(self.values["release_id"][0, 0])

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


def read_answer(request: Request, result: grpcclient.InferResult, *, latency_ms: float) -> Answer:
    """The outputs that a request asked for.

    Raises:
        AnswerError: one is missing, of another type or shape, or not finite, or they contradict each other or the
            request. None of the request's images is judged then.
    """
    values = {name: _read_output(request, result, name) for name in request.question.outputs}
    for name in ("pred_score", "threshold", "anomaly_map"):
        if name in values and not np.isfinite(values[name]).all():
            index = int(np.argmin(np.isfinite(values[name]).reshape(len(values[name]), -1).all(axis=1)))
            raise _fault(request, f"{name} of image {index} is not finite")
    score, threshold = values["pred_score"], values["threshold"]
    asked = request.question.threshold
    if asked is not None and (threshold != np.float32(asked)).any():
        raise _fault(request, f"it judged with the threshold {threshold[0, 0]}, and {asked} was asked for")
    if (values["pred_label"] != (score > threshold)).any():
        raise _fault(request, "pred_label is not what pred_score and threshold come to")
    if "anomaly_map" in values and not _score_is_of_map(score[:, 0], values["anomaly_map"]):
        raise _fault(request, "pred_score does not lie between the mean and the maximum of anomaly_map")
    return Answer(values, latency_ms)


def _score_is_of_map(score: NDArray[Any], anomaly_map: NDArray[Any]) -> bool:
    """Whether scores [B] can be the mean of the highest values, or the highest, of maps [B, S, S]."""
    slack = 1e-4 * np.abs(anomaly_map).max(axis=(1, 2))  # of a mean of thousands of float32 values
    mean, maximum = anomaly_map.mean(axis=(1, 2)), anomaly_map.max(axis=(1, 2))
    return bool(((mean - slack <= score) & (score <= maximum + slack)).all())


def _read_output(request: Request, result: grpcclient.InferResult, name: str) -> NDArray[Any]:
    outputs = list(result.get_response().outputs)
    index = next((index for index, output in enumerate(outputs) if output.name == name), None)
    if index is None:
        raise _fault(request, f"{name} is missing")
    found = (outputs[index].datatype, list(outputs[index].shape))
    shape = request.map_shape if name in MAP_OUTPUTS else (request.map_shape[0], 1)
    expected = (TYPES[name], list(shape))
    if found != expected:
        raise _fault(request, f"{name} is {found[0]} {found[1]}, expected {expected[0]} {expected[1]}")
    on_the_wire = len(result.get_response().raw_output_contents[index])
    if request.region is not None and name in MAP_OUTPUTS and not on_the_wire:
        return request.region.take(name, shape)
    try:
        return np.asarray(result.as_numpy(name))
    except ValueError:  # a stub that was built against another numpy gives tensors of 0 bytes
        raise _fault(request, f"{name} {found[1]} holds {on_the_wire} bytes") from None


def _fault(request: Request, what: str) -> AnswerError:
    count = request.map_shape[0]
    images = "the image is not" if count == 1 else f"none of the {count} images is"
    return AnswerError(
        f"What {request.model!r} answered is no verdict: {what}; {images} judged. The server's log may say why."
    )
