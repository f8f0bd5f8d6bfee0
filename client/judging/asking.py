"""Questions about one category over one channel: shared memory lent out, errors named, the category followed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.utils import InferenceServerException

from client.judging.answers import Answer
from client.judging.arguments import check_timeout
from client.judging.category import Category, find_category, load_category
from client.judging.errors import AnswerError, RequestError, ServerError
from client.judging.faults import is_misfit, server_error
from client.judging.inputs import Picture, Prepared, prepare
from client.judging.requests import Question, Request, make_request
from client.judging.retries import retrying
from client.judging.sending import GRACE_S, OpenCalls, Sender
from client.judging.shared_memory import SharedRegion, SharedRegions
from model_repository.grpc_channel import connect
from model_repository.grpc_endpoint import Endpoint


class Asker:
    """The connection behind a `JudgeClient`; threads may share it.

    Attributes:
        endpoint, url, category, timeout_s: see `JudgeClient`.
        found: the category, as it was looked up last.
        sender: sends its requests.
        calls: those that are being waited for.
        regions: shared memory, or None where the wire is used.
    """

    found: Category
    _followed: int  # the release that it was looked up for

    def __init__(
        self, server: Endpoint | str, *, category: str, timeout_s: float, shared_memory: bool, load: bool
    ) -> None:
        """Connect and look the category up, see `JudgeClient`.

        Raises:
            RequestError, ServerError: see there.
        """
        self.category, self._load = category, load
        self.timeout_s = check_timeout(timeout_s)
        try:
            self.endpoint = Endpoint.of(server)
            self._client = connect(self.endpoint)
        except ValueError as error:
            raise RequestError(str(error)) from None
        self.url = url = self.endpoint.url
        self.calls = OpenCalls()
        self.sender = Sender(self._client, url=url, load=self._load_again if load else None, calls=self.calls)
        self.regions = SharedRegions(self._client, url=url) if shared_memory else None
        try:
            with self.named_errors():
                self._look_up()  # once: where nobody is, that is told at once
                with self._region(self.found):
                    pass  # a server that does not see this host's memory is told now
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Wait for the calls that have begun, let no other begin, and free what the connection holds.

        What is late already is not waited for: the channel closes itself when its last call has ended.
        """
        try:
            self.calls.close(timeout_s=self.timeout_s + GRACE_S)
            if self.regions is not None:
                self.regions.close_all()
        finally:
            self._client.close()

    def ask(self, image: Picture, question: Question) -> Answer:
        """The answer about one image; asked again where the category turns out to take other images by now.

        Raises:
            ClientError: see `JudgeClient.predict`.
        """
        prepared = [self.prepare(image)]
        with self.calls.one_more(), self.named_errors():
            found = self.found
            try:
                answer = self._ask_once(prepared, question, found)
            except (InferenceServerException, AnswerError) as error:
                if not self.is_published_anew(error, image_size=found.image_size):
                    raise
                answer = self._ask_once(prepared, question, self.found)
            self.follow(answer)
        return answer

    def prepare(self, image: Any, name: str = "The image") -> Prepared:
        """An image as the category takes it, see `inputs.prepare`."""
        return prepare(image, bit_depth=self.found.bit_depth, name=name)

    def request(
        self, images: Sequence[Prepared], question: Question, region: SharedRegion | None, *, image_size: int
    ) -> Request:
        """A request about images that are all files or all pictures, for networks that see `image_size` pixels."""
        return make_request(images, question, category=self.category, image_size=image_size, region=region)

    def follow(self, answer: Answer) -> None:
        """Look the category up again where another release has judged than before.

        Raises:
            ServerError: the new release reads deep images by another bit depth, so that it judged other pixels than
                were meant.
        """
        if answer.release_id == self._followed:
            return
        before = self.found.bit_depth
        self._look_up_again()
        self._followed = answer.release_id
        if self.found.bit_depth != before:
            raise ServerError(
                f"Category {self.category!r} at {self.url} was published anew: white is {self.found.bit_depth} bits by "
                f"now, and the images were read with {before}; ask again."
            )

    def is_published_anew(self, error: Exception, *, image_size: int, count: int = 1) -> bool:
        """Whether a request about `count` images failed because the category takes others by now, as `found` says."""
        misfit = isinstance(error, InferenceServerException) and is_misfit(error)
        if not misfit and not isinstance(error, AnswerError):
            return False
        self._look_up_again()
        return self.found.image_size != image_size or self.found.max_batch < count

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Turn the errors of calls into what they mean."""
        try:
            yield
        except InferenceServerException as error:
            raise server_error(error, url=self.url, timeout_s=self.timeout_s) from None

    def _ask_once(self, images: Sequence[Prepared], question: Question, found: Category) -> Answer:
        with self._region(found) as region:
            request = self.request(images, question, region, image_size=found.image_size)
            return self.sender.send(request, timeout_s=self.timeout_s)

    @contextlib.contextmanager
    def _region(self, found: Category) -> Iterator[SharedRegion | None]:
        """Shared memory for one image; None where the wire is used."""
        if self.regions is None:
            yield None
            return
        with self.regions.lend(batch=1, image_size=found.image_size, timeout_s=self.timeout_s) as region:
            yield region

    def _look_up(self) -> None:
        self.found = find_category(
            self._client, self.category, url=self.url, timeout_s=self.timeout_s, load=self._load
        )
        self._followed = self.found.release_id

    def _look_up_again(self) -> None:
        retrying(self._look_up, url=self.url, timeout_s=self.timeout_s)

    def _load_again(self) -> None:
        load_category(self._client, self.category, timeout_s=self.timeout_s)
