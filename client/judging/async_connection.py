"""One image in, one typed verdict out, over gRPC and within a deadline; the event loop waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any, Literal, overload

from client.core.answers import Answer
from client.core.inputs import Picture, check_many
from client.core.requests import Question
from client.core.verdicts import Failure, Score, Verdict
from client.judging.async_streams import AsyncStream
from client.judging.driving import Threads, drive
from client.judging.served import (
    IN_FLIGHT,
    Many,
    OnError,
    ServedCategory,
    check_many_options,
    score_question,
    verdict_question,
)
from model_repository.grpc_endpoint import Endpoint

Pictures = Iterable[Picture] | AsyncIterable[Picture]


class AsyncJudgeClient(ServedCategory):
    """`JudgeClient` for programs with an event loop: the same names, types and errors.

    Use it with `async with`, which connects, and for many images. Tasks, event loops and threads may share one. A task
    that is cancelled, or runs into a timeout of its own, stops waiting; its call goes on, for the server would not
    outlive its end. Files are read, and images resized, in threads of the client.

    Attributes:
        url, endpoint, category: see `JudgeClient`.
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
        """Check what is given; the first question connects, or `connect`.

        Args:
            url, category, timeout_s, shared_memory, load, probe: see `JudgeClient`.

        Raises:
            RequestError: see `JudgeClient`.
        """
        super().__init__(
            url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load, probe=probe
        )
        self._threads = Threads(f"judge-{category}")

    async def __aenter__(self) -> AsyncJudgeClient:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Look the category up, so that its properties are known; again does nothing.

        Raises:
            ServerError: see `JudgeClient`.
        """
        if not self._asker.category.is_known:
            await self._threads.run(self._asker.connect)

    async def close(self) -> None:
        """Wait for the calls of other tasks, free the shared memory, if any, and close the connection.

        Who is cancelled meanwhile stops waiting; the closing goes on.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        try:
            self._asker.close()
        finally:
            self._threads.close()

    async def judge(self, image: Picture, *, threshold: float | None = None, min_area: int = 0) -> Verdict:
        """Ask for the verdict of one image.

        Args:
            image: as `JudgeClient.judge` takes it; it is not to be changed before the answer has come.
            threshold, min_area: see there.

        Raises:
            ClientError: as there.
        """
        return (await self._ask(image, verdict_question(threshold, min_area, probe=self._probe))).verdicts()[
            0
        ]

    async def score(self, image: Picture, *, threshold: float | None = None) -> Score:
        """As `judge`, without the maps: they never leave the fusion."""
        return (await self._ask(image, score_question(threshold, probe=self._probe))).scores()[0]

    @overload
    def judge_many(
        self,
        images: Pictures,
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        min_area: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> AsyncGenerator[Verdict]: ...

    @overload
    def judge_many(
        self,
        images: Pictures,
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        min_area: int = ...,
        on_error: Literal["return"],
    ) -> AsyncGenerator[Verdict | Failure]: ...

    def judge_many(
        self,
        images: Pictures,
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
        min_area: int = 0,
        on_error: OnError = "raise",
    ) -> AsyncGenerator[Verdict | Failure]:
        """Ask about many images without waiting for one answer before the next request.

        Args:
            images: as `judge` takes them, of an iterable or an async iterable; read no further ahead than `in_flight *
                batch`. A plain iterable that is slow holds up the event loop.
            in_flight, batch, threshold, min_area, on_error: see `JudgeClient.judge_many`.

        Yields:
            One verdict an image, or its failure, in the order of the images, each as soon as those before it are given.

        Raises:
            ClientError: as there.
        """
        return self._many(
            images, verdict_question(threshold, min_area, probe=self._probe), in_flight, batch, on_error
        )

    @overload
    def score_many(
        self,
        images: Pictures,
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        on_error: Literal["raise"] = ...,
    ) -> AsyncGenerator[Score]: ...

    @overload
    def score_many(
        self,
        images: Pictures,
        *,
        in_flight: int = ...,
        batch: int = ...,
        threshold: float | None = ...,
        on_error: Literal["return"],
    ) -> AsyncGenerator[Score | Failure]: ...

    def score_many(
        self,
        images: Pictures,
        *,
        in_flight: int = IN_FLIGHT,
        batch: int = 1,
        threshold: float | None = None,
        on_error: OnError = "raise",
    ) -> AsyncGenerator[Score | Failure]:
        """As `judge_many`, without the maps."""
        return self._many(images, score_question(threshold, probe=self._probe), in_flight, batch, on_error)

    async def _ask(self, image: Picture, question: Question) -> Answer:
        await self.connect()
        return await drive(self._asker.ask_one(image, question), self._threads, self._asker.calls)

    def _many(
        self, images: Pictures, question: Question, in_flight: int, batch: int, on_error: str
    ) -> AsyncGenerator[Any]:
        return self._stream(check_many(images), question, check_many_options(in_flight, batch, on_error))

    async def _stream(self, images: Any, question: Question, many: Many) -> AsyncGenerator[Any]:
        await self.connect()
        await self._threads.run(self._asker.category.require_batch, many.batch)
        async with aclosing(
            AsyncStream(self._asker, self._threads, question, many).results(images)
        ) as results:
            async for result in results:
                yield result
