"""What the server says of an image, or why it says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from client.core.defects import Defect, find_defects, resize_map
from client.core.errors import ClientError
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS

SCORE_OUTPUTS = tuple(name for name in VERDICT_OUTPUTS if name not in MAP_OUTPUTS)  # a few bytes each


@dataclass(frozen=True)
class Score:
    """The answer to a request for the score alone.

    Attributes:
        score: mean of the anomaly map's highest values, or its maximum, as the release was calibrated.
        threshold: an image whose score exceeds it is anomalous.
        anomalous: the label.
        release_id: which weights judged it.
        latency_ms: from sending the request to having the answer, milliseconds.
    """

    score: float
    threshold: float
    anomalous: bool
    release_id: int
    latency_ms: float


@dataclass(frozen=True)
class Verdict(Score):
    """The whole answer, for an image that the server sees as H x W pixels.

    Attributes:
        anomaly_map: [H, W] float32.
        mask: [H, W] bool; where the anomaly exceeds the pixel threshold.
        original_size: width and height of the image as it came, upright, pixels.
        min_area: `defects` leaves out those of fewer pixels of that image; the label does not depend on it.
    """

    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    original_size: tuple[int, int]
    min_area: int = 0

    @cached_property
    def defects(self) -> tuple[Defect, ...]:
        """The connected regions of the mask, the one with the highest peak first; found when first asked for.

        An anomalous image may have none, and a good one some: the label is the score's against the image threshold,
        and the mask is the map's against the pixel threshold. A mask of noise may have tens of thousands, which takes
        some tenths of a second: in an event loop, ask for them in a thread.

        Raises:
            ClientError: scipy is not installed.
        """
        return find_defects(
            self.mask, self.anomaly_map, original_size=self.original_size, min_area=self.min_area
        )

    def map_at_original_size(self) -> NDArray[np.float32]:
        """The anomaly map as float32, at the size of the image as it came.

        Of an image that has fewer pixels than the map, each has the highest value of the map within it.
        """
        return resize_map(self.anomaly_map, self.original_size)


@dataclass(frozen=True)
class Failure:
    """In place of an image's result, why it has none; of `judge_many` and `score_many` with `on_error="return"`.

    Attributes:
        index: of the image among those that were given, counted from 0.
        error: what happened; an `ImageFileError` or a `ServerError`.
    """

    index: int
    error: ClientError

    @property
    def message(self) -> str:
        """What happened, in one sentence."""
        return self.error.message
