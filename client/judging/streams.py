"""Many requests on their way at a time, and their answers in the order of the images."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence

from tritonclient.utils import InferenceServerException

from client.judging.answers import Answer
from client.judging.arguments import check_count
from client.judging.asking import Asker
from client.judging.errors import AnswerError, ClientError, ServerError
from client.judging.inputs import Picture, Prepared, batches, check_many
from client.judging.requests import Question
from client.judging.sending import Sent
from client.judging.shared_memory import SharedRegion


def ask_many(
    asker: Asker, images: Iterable[Picture], question: Question, *, in_flight: int, batch: int
) -> Generator[Answer]:
    """Answers about batches of images, in their order; the numbers are checked before the first is asked for.

    Raises:
        ClientError: see `JudgeClient.predict_many`.
    """
    in_flight = check_count(in_flight, what="The number of requests in flight")
    batch = check_count(batch, what="The batch")
    if batch > asker.found.max_batch:
        raise ServerError(
            f"Category {asker.category!r} at {asker.url} takes batches of up to {asker.found.max_batch} images, and "
            f"{batch} were asked for; give a smaller batch, or publish it with --max-batch-size {batch}."
        )
    stream = Stream(asker, question, batch=batch)
    return _in_order(stream, batches(check_many(images), batch, asker.prepare), Window(in_flight))


class Stream:
    """The requests of one `ask_many`, and the shared memory that they are handed over in."""

    def __init__(self, asker: Asker, question: Question, *, batch: int) -> None:
        self._asker, self._question, self._batch = asker, question, batch
        self._spare: list[SharedRegion] = []

    def send_later(self, images: Sequence[Prepared]) -> Sent:
        """Send a request about a batch and do not wait for its answer."""
        with self._asker.calls.one_more(), self._asker.named_errors():
            image_size = self._asker.found.image_size
            region = self._region(image_size)
            try:
                request = self._asker.request(images, self._question, region, image_size=image_size)
                return self._asker.sender.send_later(request, timeout_s=self._asker.timeout_s)
            except BaseException:
                self._abandon(region)
                raise

    def receive(self, sent: Sent) -> Answer:
        """Wait for the answer to a request."""
        with self._asker.calls.one_more(), self._asker.named_errors():
            try:
                answer = self._asker.sender.receive(sent, timeout_s=self._asker.timeout_s)
            except (InferenceServerException, AnswerError) as error:
                count, image_size, _ = sent.request.map_shape
                if self._asker.is_published_anew(error, image_size=image_size, count=count):
                    found = self._asker.found
                    raise ServerError(
                        f"Category {self._asker.category!r} at {self._asker.url} was published anew and takes other "
                        f"images than before ({found.image_size} px, {found.max_batch} a request); ask again about the "
                        "rest."
                    ) from None
                raise
            self._asker.follow(answer)
        if self._asker.regions is not None and sent.request.region is not None:
            self._asker.regions.give_back(sent.request.region, self._spare)
        return answer

    def close(self, unanswered: Iterable[Sent], *, wait: bool) -> None:
        """Wait for what is still on its way, and free the shared memory; the server may write into it until then.

        Without `wait`, what is on its way is left alone.
        """
        for sent in unanswered:
            if wait:
                sent.wait()
            else:
                sent.give_up()
            answered = sent.arrival.done() and sent.arrival.exception() is None
            if answered and sent.request.region is not None:
                self._spare.append(sent.request.region)
            else:
                self._abandon(sent.request.region)
        if self._asker.regions is not None:
            for region in self._spare:
                self._asker.regions.close(region)

    def _region(self, image_size: int) -> SharedRegion | None:
        if self._asker.regions is None:
            return None
        return self._asker.regions.take(
            self._spare,
            batch=self._batch,
            image_size=image_size,
            timeout_s=self._asker.timeout_s,
        )

    def _abandon(self, region: SharedRegion | None) -> None:
        if self._asker.regions is not None and region is not None:
            self._asker.regions.abandon(region)


class Window:
    """How many requests may be on their way: fewer, once the server refuses some."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._sent = 0
        self._narrowed_at = 0

    def next_number(self) -> int:
        """The number of a request that is being sent, from 1 on."""
        self._sent += 1
        return self._sent

    def narrow(self, number: int) -> None:
        """Halve the window, because request `number` was refused; once for all that were on their way together."""
        if number > self._narrowed_at:
            self.size = max(1, self.size // 2)
            self._narrowed_at = self._sent


def _in_order(stream: Stream, images: Iterator[list[Prepared]], window: Window) -> Generator[Answer]:
    """One answer a batch; where something fails, the batches before it are answered first."""
    pending: deque[tuple[int, Sent]] = deque()
    fault: ClientError | None = None
    wait = True

    def first() -> Answer:
        number, sent = pending[0]
        if sent.wait() and sent.refused:
            window.narrow(number)
        answer = stream.receive(sent)
        pending.popleft()
        return answer

    try:
        while fault is None:
            try:
                batch = next(images, None)
            except ClientError as error:
                fault = error
                break
            if batch is None:
                break
            while len(pending) >= window.size:
                yield first()
            try:
                pending.append((window.next_number(), stream.send_later(batch)))
            except ClientError as error:
                fault = error
        while pending:
            yield first()
        if fault is not None:
            raise fault
    except KeyboardInterrupt:  # who presses Ctrl-C does not wait for deadlines
        wait = False
        raise
    finally:
        stream.close((sent for _, sent in pending), wait=wait)
