"""Many requests on their way at a time, and their results in the order of the images; the event loop waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from client.core.batching import Batch, Batcher
from client.core.errors import ClientError, ImageFileError, RequestError
from client.core.requests import Question
from client.core.verdicts import Failure, Score
from client.core.windows import Window
from client.judging.asking import Asker
from client.judging.driving import Threads, drive
from client.judging.served import Many
from client.judging.shared_memory import Lender

Results = list[Score | Failure]


class AsyncStream:
    """The requests of one `judge_many` or `score_many`."""

    def __init__(self, asker: Asker, threads: Threads, question: Question, many: Many) -> None:
        """Ask through `asker`, whose steps `threads` take."""
        self._asker, self._threads, self._question, self._many = asker, threads, question, many
        self._window = Window(many.in_flight)
        self._lender: Lender = asker.lender_of(batch=many.batch)

    async def results(self, images: Any) -> AsyncGenerator[Score | Failure]:
        """What becomes of each image, in their order; a result is given as soon as those before it are.

        Raises:
            ClientError: see `AsyncJudgeClient.judge_many`.
        """
        async with aclosing(self._in_order(images)) as results:
            async for result in results:
                if isinstance(result, Failure) and not self._many.returns_failures:
                    raise result.error
                yield result

    async def _in_order(self, images: Any) -> AsyncGenerator[Score | Failure]:
        pending: deque[asyncio.Task[Results]] = deque()
        reading: asyncio.Task[Batch | Failure | None] | None = None
        fault: Exception | None = None
        ended = False
        async with aclosing(self._batches(images)) as batches:
            try:
                while True:
                    if reading is None and not ended and len(pending) < self._window.size:
                        reading = asyncio.create_task(_next(batches))
                    awaited = [*([] if reading is None else [reading]), *list(pending)[:1]]
                    if not awaited:
                        break
                    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                    if pending and pending[0].done():
                        for result in pending.popleft().result():
                            yield result
                    elif reading is not None and reading.done():
                        try:
                            batch = reading.result()
                        except Exception as error:  # those before it are answered first
                            batch, fault = None, error
                        reading, ended = None, batch is None
                        if batch is not None:
                            pending.append(asyncio.create_task(self._ask(batch)))
                if fault is not None:
                    raise fault
            finally:
                await self._leave([*pending, *([] if reading is None else [reading])])

    async def _ask(self, batch: Batch | Failure) -> Results:
        """What becomes of each image of a batch."""
        if isinstance(batch, Failure):
            return [batch]
        number = self._window.next_number()
        alone = self._many.returns_failures
        steps = self._asker.ask_each(batch.images, self._question, self._lender, alone=alone)
        each = await drive(
            steps, self._threads, self._asker.calls, on_refusal=lambda: self._window.narrow(number)
        )
        return [
            Failure(index, result) if isinstance(result, ClientError) else result
            for index, result in enumerate(each, start=batch.first)
        ]

    async def _batches(self, images: Any) -> AsyncGenerator[Batch | Failure]:
        """Images in their order, some together, and a failure for each that cannot be read."""
        batcher, index = Batcher(), 0
        try:
            async for image in _each(images):
                try:
                    prepared = await self._threads.run(self._asker.prepare_own, image, index)
                except ImageFileError as error:
                    for batch in batcher.rest():
                        yield batch
                    yield Failure(index, error)
                else:
                    size = min(self._many.batch, self._asker.category.found.max_batch)
                    for batch in batcher.add(index, prepared, size=size):
                        yield batch
                index += 1
        except Exception:
            for batch in batcher.rest():
                yield batch
            raise
        for batch in batcher.rest():
            yield batch

    async def _leave(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait for nothing that is still on its way: the calls go on, and nobody waits for them."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            tidying = (
                self._asker.calls.begin()
            )  # closing the client waits for it, or the server would keep regions
        except RequestError:  # the client is closed already, and all its regions with it
            return
        self._threads.start(lambda: self._tidy_up(tidying))

    def _tidy_up(self, call: object) -> None:
        try:
            self._lender.close()
        finally:
            self._asker.calls.end(call)


async def _each(images: Any) -> AsyncIterator[Any]:
    """Images of an iterable of either kind."""
    if hasattr(images, "__aiter__"):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image


async def _next(batches: AsyncGenerator[Batch | Failure]) -> Batch | Failure | None:
    """The next batch, or None where there is none."""
    return await anext(batches, None)
