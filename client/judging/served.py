"""What both shells have in common: what they say of their category, and how a question about many images is put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from client.core.arguments import (
    check_category,
    check_count,
    check_min_area,
    check_on_error,
    check_threshold,
    check_timeout,
)
from client.core.requests import Question
from client.core.verdicts import SCORE_OUTPUTS
from client.judging.asking import Asker
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.grpc_endpoint import Endpoint
from model_repository.image_size import ImageSize

IN_FLIGHT = 4  # enough for every step of an ensemble to have work
OnError = Literal["raise", "return"]


@dataclass(frozen=True)
class Many:
    """How many images are asked about.

    Attributes:
        in_flight: requests that may be on their way at a time.
        batch: images a request, at most.
        returns_failures: an image without a result has a `Failure` in its place; otherwise the first of them ends it.
    """

    in_flight: int
    batch: int
    returns_failures: bool


class ServedCategory:
    """A category as the server says it is; it follows when the category is published anew.

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
        self._probe = probe
        self.category = check_category(category)
        self._asker = Asker(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
        )
        self.endpoint = self._asker.endpoint
        self.url = self.endpoint.url

    @property
    def timeout_s(self) -> float:
        """Deadline of every call, seconds."""
        return self._asker.timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float) -> None:
        self._asker.timeout_s = check_timeout(timeout_s)

    @property
    def image_size(self) -> ImageSize:
        """What the category's networks see images at: the side of a square, or height and width, pixels."""
        return self._asker.category.found.image_size

    @property
    def keep_aspect(self) -> bool:
        """Whether images keep their shape where they are resized, and what is left beside them is filled."""
        return self._asker.category.found.keep_aspect

    @property
    def max_batch(self) -> int:
        """Images that one request may hold."""
        return self._asker.category.found.max_batch

    @property
    def synthetic(self) -> bool:
        """Whether the category was trained on rendered images; whatever is shown of it must say so."""
        return self._asker.category.found.synthetic

    @property
    def precision(self) -> str:
        """Of the graphs that are served, `fp32`, `fp16` or `int8`."""
        return self._asker.category.found.precision

    @property
    def preset(self) -> str:
        """That the category was trained with, `edge` or `paper`."""
        return self._asker.category.found.preset

    @property
    def bit_depth(self) -> int:
        """White of images with more than 8 bits a channel is 2**bit_depth - 1, as in training."""
        return self._asker.category.found.bit_depth

    @property
    def release_id(self) -> int:
        """Which weights judge; the verdicts carry their own."""
        return self._asker.category.found.release_id


def verdict_question(threshold: Any, min_area: Any, *, probe: bool) -> Question:
    """A question for whole verdicts.

    Raises:
        RequestError: a threshold or an area that cannot be.
    """
    return Question(VERDICT_OUTPUTS, check_threshold(threshold), check_min_area(min_area), probe=probe)


def score_question(threshold: Any, *, probe: bool) -> Question:
    """A question for scores alone.

    Raises:
        RequestError: a threshold that cannot be.
    """
    return Question(SCORE_OUTPUTS, check_threshold(threshold), probe=probe)


def check_many_options(in_flight: Any, batch: Any, on_error: Any) -> Many:
    """How many images are asked about.

    Raises:
        RequestError: one of the numbers cannot be, or `on_error` is neither of its two.
    """
    return Many(
        check_count(in_flight, what="The number of requests in flight"),
        check_count(batch, what="The batch"),
        check_on_error(on_error),
    )
