"""What comes back from the server, checked: a verdict for every image, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.core.errors import AnswerError, OtherSizeError
from client.core.requests import ORIGINAL_SIZE, Request
from client.core.verdicts import SCORE_OUTPUTS, Score, Verdict
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS
from model_repository.image_size import NATIVE, filled_size

TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "anomaly_map": ("FP32", np.float32),
    "pred_score": ("FP32", np.float32),
    "pred_label": ("BOOL", np.bool_),
    "pred_mask": ("BOOL", np.bool_),
    "threshold": ("FP32", np.float32),
    "release_id": ("INT64", np.int64),
    ORIGINAL_SIZE: ("INT32", np.int32),
}
Maps = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        request: that it answers.
        values: an array [B, ...] an output.
        latency_ms: from sending to having it, milliseconds.
    """

    request: Request
    values: dict[str, NDArray[Any]]
    latency_ms: float

    @property
    def release_id(self) -> int:
        """The release that judged."""
        return int(self.values["release_id"][0, 0])

    def results(self) -> list[Score]:
        """What was asked for of every image: its `Verdict`, or its `Score` alone."""
        return [*self.verdicts()] if self.request.question.for_maps else self.scores()

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
        columns = zip(self.scores(), maps, masks, self._sizes(), strict=True)
        return [
            Verdict(
                **vars(score),
                anomaly_map=anomaly_map[self.request.seen(size)],
                mask=mask[self.request.seen(size)],
                original_size=size,
                min_area=self.request.question.min_area,
            )
            for score, anomaly_map, mask, size in columns
        ]

    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each image as it came."""
        if self.request.sizes:
            return self.request.sizes
        return tuple((width, height) for height, width in self.values[ORIGINAL_SIZE].tolist())


def read_answer(request: Request, response: Any, *, latency_ms: float, maps: Maps | None = None) -> Answer:
    """The outputs that a request asked for.

    Args:
        request: what was sent.
        response: the message of gRPC's `ModelInfer` that came back.
        latency_ms: from sending to having it.
        maps: what was handed over in shared memory, by its output's name.

    Raises:
        AnswerError: one is missing, of another type or shape, or not finite, or they contradict each other or the
            request. None of the request's images is judged then.
    """
    values = {name: _read_output(request, response, name, maps or {}) for name in request.outputs}
    for name in ("pred_score", "threshold", "anomaly_map"):
        if name in values:
            _require_finite(request, name, values[name])
    score, threshold = values["pred_score"], values["threshold"]
    asked = request.question.threshold
    if asked is not None and (threshold != np.float32(asked)).any():
        raise _fault(request, f"it judged with the threshold {threshold[0, 0]}, and {asked} was asked for")
    if ORIGINAL_SIZE in values and (values[ORIGINAL_SIZE] < 1).any():
        raise _fault(
            request, f"original_size is {values[ORIGINAL_SIZE].tolist()}, expected sides of at least 1"
        )
    if request.native and ORIGINAL_SIZE in values:
        _require_own_size(request, values)
    if (values["pred_label"] != (score > threshold)).any():
        raise _fault(request, "pred_label is not what pred_score and threshold come to")
    if "anomaly_map" in values and not _score_is_of_map(score[:, 0], values["anomaly_map"]):
        raise _fault(request, "pred_score does not lie between the mean and the maximum of anomaly_map")
    return Answer(request, values, latency_ms)


def _require_own_size(request: Request, values: Maps) -> None:
    """The maps of a file that keeps its own size are as large as it is, filled up.

    Raises:
        OtherSizeError: they are not.
    """
    height, width = values[ORIGINAL_SIZE][0].tolist()
    for name in MAP_OUTPUTS:
        if (found := values[name].shape[1:]) != filled_size(height, width):
            fault = f"{name} has {found[0]} rows and {found[1]} columns of an image of {height} and {width}"
            raise OtherSizeError(_fault(request, fault).message)


def _require_finite(request: Request, name: str, values: NDArray[Any]) -> None:
    """Refuse an output [B, ...] in which a value is not finite.

    Raises:
        AnswerError: there is one; it names the image.
    """
    of_image = values.reshape(len(values), -1)
    # What is not finite is the lowest or the highest: no array of answers is made, which large maps feel. A map without
    # pixels has neither; it is refused for its size.
    finite = np.isfinite(of_image.min(axis=1, initial=0)) & np.isfinite(of_image.max(axis=1, initial=0))
    if not finite.all():
        raise _fault(request, f"{name} of image {int(np.argmin(finite))} is not finite")


def _score_is_of_map(score: NDArray[Any], anomaly_map: NDArray[Any]) -> bool:
    """Whether scores [B] can be the mean of the highest values, or the highest, of maps [B, H, W]."""
    mean, lowest, highest = (
        find(axis=(1, 2)) for find in (anomaly_map.mean, anomaly_map.min, anomaly_map.max)
    )
    slack = 1e-4 * np.maximum(np.abs(lowest), np.abs(highest))  # of a mean of thousands of float32 values
    return bool(((mean - slack <= score) & (score <= highest + slack)).all())


def _read_output(request: Request, response: Any, name: str, maps: Maps) -> NDArray[Any]:
    outputs = list(response.outputs)
    index = next((index for index, output in enumerate(outputs) if output.name == name), None)
    if index is None:
        raise _fault(request, f"{name} is missing")
    found = (outputs[index].datatype, list(outputs[index].shape))
    datatype, kind = TYPES[name]
    shape: tuple[int, ...] = (request.map_shape[0], 2 if name == ORIGINAL_SIZE else 1)
    if name in MAP_OUTPUTS:
        shape = request.map_shape
        if NATIVE in shape and found[1][:1] == [1]:  # of a file that keeps its own size, checked with that
            shape = tuple(found[1])
    expected = (datatype, list(shape))
    if found != expected:
        error = _fault(request, f"{name} is {found[0]} {found[1]}, expected {expected[0]} {expected[1]}")
        if name in MAP_OUTPUTS and found[0] == datatype:
            raise OtherSizeError(error.message)
        raise error
    contents = response.raw_output_contents
    raw = contents[index] if index < len(contents) else b""
    if name in maps and not raw:
        return maps[name]
    try:
        return np.frombuffer(raw, kind).reshape(shape)
    except ValueError:  # a stub that was built against another numpy gives tensors of 0 bytes
        raise _fault(request, f"{name} {found[1]} holds {len(raw)} bytes") from None


def _fault(request: Request, what: str) -> AnswerError:
    count = request.map_shape[0]
    images = "the image is not" if count == 1 else f"none of the {count} images is"
    return AnswerError(
        f"What {request.model!r} answered is no verdict: {what}; {images} judged. The server's log may say why."
    )
