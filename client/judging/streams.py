"""Many requests on their way at a time, and their results in the order of the images; the caller waits."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from client.core.batching import Batch, Batcher
from client.core.errors import ClientError, ImageFileError
from client.core.inputs import check_many
from client.core.requests import Question
from client.core.verdicts import Failure, Score
from client.core.windows import Window
from client.judging.asking import Asker
from client.judging.sending import Sent
from client.judging.served import Many
from client.judging.shared_memory import Lender
from client.judging.steps import run


def ask_many(asker: Asker, images: Any, question: Question, many: Many) -> Generator[Score | Failure]:
    """What becomes of images, in their order; what was given is checked before the first is asked about.

    Raises:
        ClientError: see `JudgeClient.judge_many`.
    """
    asker.category.require_batch(many.batch)
    results = _in_order(asker, _batches(asker, check_many(images), many.batch), question, many)
    return results if many.returns_failures else _until_failure(results)


def _until_failure(results: Generator[Score | Failure]) -> Generator[Score | Failure]:
    """The results until one is a failure, which is raised."""
    with contextlib.closing(results):
        for result in results:
            if isinstance(result, Failure):
                raise result.error
            yield result


def _batches(asker: Asker, images: Iterator[Any], size: int) -> Iterator[Batch | Failure]:
    """Images in their order, up to `size` together, and a failure for each that cannot be read.

    What was read before the images themselves raise something is given before that.
    """
    batcher = Batcher()
    try:
        for index, image in enumerate(images):
            try:
                prepared = asker.prepare_own(image, index)
            except ImageFileError as error:
                yield from batcher.rest()
                yield Failure(index, error)
            else:
                yield from batcher.add(index, prepared, size=min(size, asker.category.found.max_batch))
    except Exception:
        yield from batcher.rest()
        raise
    yield from batcher.rest()


def _in_order(
    asker: Asker, batches: Iterator[Batch | Failure], question: Question, many: Many
) -> Generator[Score | Failure]:
    """What becomes of each image; where reading them fails, those before are answered first."""
    window, lender = Window(many.in_flight), asker.lender_of(batch=many.batch)
    pending: deque[_Asked] = deque()
    fault: Exception | None = None
    ended, wait = False, True
    try:
        while pending or not ended:
            if not ended and len(pending) < window.size:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    batch, fault = None, error
                ended = batch is None
                if batch is not None:
                    pending.append(
                        _Asked(asker, batch, question, lender, window, alone=many.returns_failures)
                    )
            if pending and (ended or len(pending) >= window.size or pending[0].ended):
                results = pending[0].results()
                pending.popleft()
                yield from results
        if fault is not None:
            raise fault
    except KeyboardInterrupt:  # who presses Ctrl-C does not wait for deadlines
        wait = False
        raise
    finally:
        for asked in pending:
            asked.close(wait=wait)
        lender.close()


class _Asked:
    """A batch that has been asked about, or an image that cannot be."""

    def __init__(
        self,
        asker: Asker,
        batch: Batch | Failure,
        question: Question,
        lender: Lender,
        window: Window,
        *,
        alone: bool,
    ) -> None:
        """Send a request about a batch and do not wait for its answer.

        Raises:
            RequestError: the connection is closed.
        """
        self._asker, self._batch, self._window = asker, batch, window
        self._number = window.next_number()
        self._waiting: Any = None
        self._each: list[Score | ClientError] | None = None
        if isinstance(batch, Failure):
            self._each = [batch.error]
            return
        self._steps = asker.ask_each(batch.images, question, lender, alone=alone, renews=True)
        self._call = call = asker.calls.begin()
        try:
            self._waiting = next(self._steps)
        except StopIteration as end:
            self._each = end.value
        finally:
            if isinstance(self._waiting, Sent):
                self._waiting.arrival.add_done_callback(lambda _: asker.calls.end(call))
            else:
                asker.calls.end(call)

    @property
    def ended(self) -> bool:
        """Whether there is something to be had without waiting."""
        return self._each is not None or (isinstance(self._waiting, Sent) and self._waiting.ended)

    def results(self) -> list[Score | Failure]:
        """What became of each image of the batch, once that is known.

        Raises:
            RequestError: the connection is closed.
        """
        first = self._batch.index if isinstance(self._batch, Failure) else self._batch.first
        each = self._each if self._each is not None else self._wait()
        return [
            Failure(index, result) if isinstance(result, ClientError) else result
            for index, result in enumerate(each, start=first)
        ]

    def _wait(self) -> list[Score | ClientError]:
        try:
            self._waiting.wait()
            if isinstance(self._waiting, Sent) and self._waiting.refused:
                self._window.narrow(self._number)
            self._asker.calls.end(self._call)
            with self._asker.calls.one_more():
                return run(self._steps)
        except BaseException:
            self.close(wait=False)
            raise

    def close(self, *, wait: bool) -> None:
        """Leave it alone, with `wait` once it has ended; the server may write into its shared memory until then."""
        if self._each is None:
            if wait and isinstance(self._waiting, Sent):
                self._waiting.wait()
            self._asker.calls.end(self._call)
            self._steps.close()
