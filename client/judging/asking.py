"""Questions about one category over one channel, in `steps`: retries, errors, shared memory and new releases."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any

from tritonclient.utils import InferenceServerException

from client.core.answers import Answer, read_answer
from client.core.arguments import check_timeout
from client.core.category import Category
from client.core.errors import (
    AnswerError,
    BitDepthError,
    ClientError,
    ImageFileError,
    ImageTypeError,
    RequestError,
    ServerError,
    Unreachable,
)
from client.core.faults import fault_of, is_misfit, is_of_another_size, is_of_one_image
from client.core.inputs import Picture, Prepared
from client.core.requests import Question, Request, make_request, require_own_size, size_in_memory
from client.core.retries import Tries
from client.core.verdicts import Score
from client.judging.calls import named_errors, peer_of
from client.judging.category import FollowedCategory
from client.judging.mending import Mending
from client.judging.reading import prepare_any
from client.judging.sending import OpenCalls, Pause, send
from client.judging.shared_memory import Lender, SharedRegion, SharedRegions
from client.judging.steps import Steps
from client.tracing.spans import Spans, spans_of
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS
from model_repository.grpc_channel import connect
from model_repository.grpc_endpoint import Endpoint
from model_repository.image_size import NATIVE, SMALLEST_SIDE

GRACE_S = 5.0  # in which who waits for an answer has learnt of its deadline
MOST_RELEASES = 4  # that a category may have while one request is asked
NO_ROOM_S = 0.02  # between looks at whether a server that answers nothing has answered something


class Asker:
    """The connection behind a client; threads may share it.

    Attributes:
        endpoint, url: see `JudgeClient`.
        category: the published product, as it was looked up last.
        calls: those that are being waited for.
        lender: of shared memory for single images.
    """

    def __init__(
        self, server: Endpoint | str, *, category: str, timeout_s: float, shared_memory: bool, load: bool
    ) -> None:
        """Check what was given, see `JudgeClient`; nothing is sent before `connect`.

        Raises:
            RequestError: see there.
        """
        timeout_s = check_timeout(timeout_s)
        try:
            self.endpoint = Endpoint.of(server)
            self._client = connect(self.endpoint)
        except ValueError as error:
            raise RequestError(str(error)) from None
        self.url = self.endpoint.url
        self._peer = peer_of(self.url)  # gRPC, too, reads once through which proxy
        self.category = FollowedCategory(self._client, category, url=self.url, timeout_s=timeout_s, load=load)
        self.calls = OpenCalls()
        self._regions = SharedRegions(self._client, url=self.url) if shared_memory else None
        self.lender = self.lender_of(batch=1)

    def connect(self) -> None:
        """Look the category up; again does no harm.

        Raises:
            ServerError: see `JudgeClient`.
        """
        with self.calls.one_more(), self._named_errors():
            self.category.look_up()  # once: where nobody is, that is told at once
            # A server that does not see this host's memory is told now.
            size = self.category.found.image_size
            size = SMALLEST_SIDE if size == NATIVE else size
            self.lender.give_back(self.lender.take(image_size=size, timeout_s=self.timeout_s))

    def close(self) -> None:
        """Wait for the calls that have begun, let no other begin, and free what the connection holds.

        What is late already is not waited for: the channel closes itself when its last call has ended.
        """
        try:
            self.calls.close(timeout_s=self.timeout_s + GRACE_S)
            if self._regions is not None:
                self._regions.close_all()
        finally:
            self._client.close()

    @property
    def timeout_s(self) -> float:
        """Deadline of every call, seconds."""
        return self.category.timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float) -> None:
        self.category.timeout_s = timeout_s

    def lender_of(self, *, batch: int) -> Lender:
        """Shared memory for requests of up to `batch` images."""
        return Lender(self._regions, batch=batch)

    def prepare_own(self, image: Any, index: int) -> Prepared:
        """The image of this index, counted from 0, as the category takes it, whose pixels nobody else holds."""
        return self._prepare(image, f"Image {index} (counted from 0)", own=True)

    def ask_one(self, image: Picture, question: Question) -> Steps[Answer]:
        """The answer about one image in any form.

        Raises:
            ClientError: see `JudgeClient.judge`.
        """
        return (yield from self.ask([self._prepare(image)], question, self.lender))

    def ask_each(
        self,
        images: Sequence[Prepared],
        question: Question,
        lender: Lender,
        *,
        alone: bool,
        renews: bool = False,
    ) -> Steps[list[Score | ClientError]]:
        """What becomes of each of some images that go together.

        Args:
            images, question, lender, renews: as `ask` takes them.
            alone: a fault in one of them ends that one alone: they are asked about again, one by one. Otherwise it ends
                the request, unless that is larger than the category takes by now.
        """
        try:
            answer = yield from self.ask(images, question, lender, renews=renews)
        except (ServerError, ImageFileError) as error:
            one_by_one = alone or len(images) > self.category.found.max_batch
            if len(images) == 1 or not (one_by_one and is_of_one_image(error)):
                return [error] * len(images)
            each: list[Score | ClientError] = []
            for image in images:
                each += yield from self.ask_each([image], question, lender, alone=alone)
            return each
        return [*answer.results()]

    def ask(
        self, images: Sequence[Prepared], question: Question, lender: Lender, *, renews: bool = False
    ) -> Steps[Answer]:
        """The answer about images; asked again where the category turns out to take others by now.

        Args:
            images: at least one; all files, or all pictures.
            question: what is asked.
            lender: of shared memory.
            renews: the budget of time begins anew when the first try has failed: who asked was not looking until then.

        Raises:
            ClientError: see `JudgeClient.judge`.
        """
        there_and_back = False
        names = [image.name for image in images]
        with spans_of(self.category.name, names) as spans, self._named_errors():
            for _ in range(MOST_RELEASES):
                found = self.category.found
                fitting = [image.at(found.bit_depth) for image in images]
                try:
                    answer = yield from self._ask_once(fitting, question, lender, found, spans, renews=renews)
                except (InferenceServerException, AnswerError) as error:
                    if not self._is_misfit(error):
                        raise
                    if self.category.found.image_size == found.image_size:
                        if there_and_back or not is_of_another_size(error):
                            raise
                        there_and_back = True  # that release was live for a moment
                    continue
                self.category.follow(answer.release_id)
                if self._was_sent_right(found, fitting):
                    spans.judged(answer)
                    return answer
            raise ServerError(
                f"Category {self.category.name!r} at {self.url} was published anew {MOST_RELEASES} times meanwhile; "
                "ask again."
            )

    def _ask_once(
        self,
        images: Sequence[Prepared],
        question: Question,
        lender: Lender,
        found: Category,
        spans: Spans,
        *,
        renews: bool,
    ) -> Steps[Answer]:
        """The answer about images of the size and bit depth that `found` names."""
        require_own_size(images, found)
        size = size_in_memory(images, found)
        region = None if size is None else lender.take(image_size=size, timeout_s=self.timeout_s)
        try:
            place = None if region is None else region.place
            request = make_request(
                images,
                question,
                category=self.category.name,
                image_size=found.image_size,
                place=place,
                keep_aspect=found.keep_aspect,
            )
            if region is not None and request.pixels is not None:
                region.put(request.pixels)
            answer = yield from self._send(request, region, spans, renews=renews)
        except BaseException:  # the wait was given up, say: the server may still write into it
            lender.abandon(region)
            raise
        lender.give_back(region)
        return answer

    def _send(
        self, request: Request, region: SharedRegion | None, spans: Spans, *, renews: bool
    ) -> Steps[Answer]:
        """Send a request until it is answered or its time is over.

        Its last try may be judged after the deadline: nobody learns of that, and no other request gets its answer.
        """
        started_s, timeout_s = time.perf_counter(), self.timeout_s
        tries = Tries.begin(self._peer, timeout_s=timeout_s, now_s=started_s)
        mending = Mending(self.category.load, region)
        while True:
            try:
                if mended_s := mending.mend():
                    tries = tries.extended(mended_s)
                while not self._client.has_room:
                    tries.left_s(time.perf_counter())
                    yield Pause(NO_ROOM_S)
                left_s = tries.left_s(time.perf_counter())
                message = request.message(timeout_s=left_s)
                with spans.call(self.url) as call:
                    sent = send(self._client, message, timeout_s=left_s, headers=call.headers)
                    yield sent
                    response, arrived_s = sent.result()
                    call.answered(arrived_s)
            except InferenceServerException as error:
                now_s = time.perf_counter()
                if renews:
                    tries, renews = Tries.begin(tries.peer, timeout_s=timeout_s, now_s=now_s), False
                if mending.can_mend(error):
                    continue
                if region is not None and fault_of(error).kind is Unreachable:
                    region.in_doubt = True
                tries, wait_s = tries.after(error, now_s=now_s, chance=random.random())
                yield Pause(wait_s)
            else:
                latency_ms = 1000 * (arrived_s - started_s)
                maps = _maps_of(request, region)
                return read_answer(request, response, latency_ms=latency_ms, maps=maps)

    def _prepare(self, image: Any, name: str = "The image", *, own: bool = False) -> Prepared:
        """An image as the category takes it; one that it would not take may fit what is published by now."""
        bit_depth = self.category.found.bit_depth
        try:
            return prepare_any(image, bit_depth=bit_depth, name=name, own=own)
        except (BitDepthError, ImageTypeError):
            self.category.look_up_if_there()
            if self.category.found.bit_depth == bit_depth:
                raise
        return prepare_any(image, bit_depth=self.category.found.bit_depth, name=name, own=own)

    def _was_sent_right(self, found: Category, sent: Sequence[Prepared]) -> bool:
        """Whether the release that answered takes images as they were sent: as `found` says, which may be of before."""
        now = self.category.found
        return now.resizes_as(found) and all(image.fits(now.bit_depth) for image in sent)

    def _is_misfit(self, error: Exception) -> bool:
        """Whether a request failed as where the category takes other images than it did; it is looked up anew then."""
        of_server = isinstance(error, InferenceServerException)
        if misfit := is_misfit(error) if of_server else isinstance(error, AnswerError):
            self.category.look_up_again()
        return misfit

    def _named_errors(self) -> contextlib.AbstractContextManager[None]:
        return named_errors(url=self.url, timeout_s=self.timeout_s)


def _maps_of(request: Request, region: SharedRegion | None) -> dict[str, Any]:
    """The maps that were asked for, out of shared memory."""
    if region is None or not request.question.for_maps:
        return {}
    return {name: region.take(name, request.map_shape) for name in MAP_OUTPUTS}
