"""A task that stops waiting, in any way, cancels no call and loses nothing; streams keep to their window."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from client import AsyncJudgeClient, DeadlineExceeded, RequestError, Score
from tests.client.judging.scripted_server import SIZE, TIMEOUT_S, Script, grey, scripted_server
from tests.deploy.conftest import comes_true
from tests.http2_wire import HEADERS, RST_STREAM, Wire, watched

DELAY_S = 0.3
Work = Callable[[AsyncJudgeClient, Script], Coroutine[Any, Any, Any]]


@contextlib.contextmanager
def slow_server(delay_s: float = DELAY_S) -> Iterator[tuple[Script, str, Wire]]:
    """A server that answers after a while, its address, and what one client sends to it."""
    script = Script(delay_s=delay_s)
    with scripted_server(script) as url, watched(url) as (proxy, wire):
        yield script, proxy, wire
        assert comes_true(lambda: len(script.asked) == script.tries, within_s=20)
        time.sleep(0.05)


def client(url: str, *, timeout_s: float = TIMEOUT_S, shared_memory: bool = False) -> AsyncJudgeClient:
    return AsyncJudgeClient(url, category="pill", timeout_s=timeout_s, shared_memory=shared_memory)


async def sent(script: Script, number: int) -> None:
    while script.tries < number:
        await asyncio.sleep(0.005)


async def cancel_one(judge: AsyncJudgeClient, script: Script) -> None:
    task = asyncio.create_task(judge.judge(grey(0)))
    await sent(script, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def time_out(judge: AsyncJudgeClient, script: Script) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(DELAY_S / 2):
            await judge.score(grey(0))


async def be_late(judge: AsyncJudgeClient, script: Script) -> None:
    judge.timeout_s = DELAY_S / 3
    started_s = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match=r"No answer from .* within 0\.1 s"):
        await judge.judge(grey(0))
    assert time.perf_counter() - started_s < DELAY_S
    judge.timeout_s = TIMEOUT_S


async def cancel_a_stream(judge: AsyncJudgeClient, script: Script) -> None:
    async def ask() -> None:
        async for _ in judge.judge_many([grey(0)] * 9, in_flight=3, batch=2):
            pass

    task = asyncio.create_task(ask())
    await sent(script, 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_a_stream(judge: AsyncJudgeClient, script: Script) -> None:
    results = judge.score_many([grey(0)] * 9, in_flight=3)
    async for _ in results:
        break
    await results.aclose()


@pytest.mark.parametrize("shared_memory", [False, True], ids=["wire", "shared memory"])
@pytest.mark.parametrize("stop_waiting", [cancel_one, time_out, be_late, cancel_a_stream, leave_a_stream])
def test_who_stops_waiting_cancels_no_call_and_the_next_answer_is_its_own(
    stop_waiting: Work, shared_memory: bool
) -> None:
    """tritonserver 2.51 dies of a call that is cancelled; a region whose call goes on is nobody else's."""
    with slow_server() as (script, url, wire):

        async def work() -> None:
            async with client(url, shared_memory=shared_memory) as judge:
                await stop_waiting(judge, script)
                left = set(script.used)
                before = len(script.used)
                score = await judge.score(grey(0 if shared_memory else 20))
                assert score.score == (0 if shared_memory else 20)
                assert left.isdisjoint(script.used[before:])

        asyncio.run(work())
    assert wire.frames().count(HEADERS) >= 4
    assert RST_STREAM not in wire.frames()
    assert not script.registered


def test_a_loop_that_is_closed_leaves_its_calls_alone() -> None:
    """The call's end finds no loop: that is nobody's error, and another loop goes on with the client."""
    with slow_server() as (script, url, wire):
        judge = client(url)
        loop = asyncio.new_event_loop()
        task = loop.create_task(judge.judge(grey(0)))
        loop.run_until_complete(sent(script, 1))
        loop.stop()
        task.cancel()  # as asyncio.run does
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()
        assert asyncio.run(judge.score(grey(20))).score == 20
        asyncio.run(judge.close())
    assert RST_STREAM not in wire.frames()


def test_a_loop_that_is_thrown_away_with_its_task_leaves_the_call_alone() -> None:
    with slow_server() as (script, url, wire):
        judge = client(url)
        loop = asyncio.new_event_loop()
        task = loop.create_task(judge.judge(grey(0)))
        loop.run_until_complete(sent(script, 1))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        del task, loop
        gc.collect()
        assert asyncio.run(judge.score(grey(20))).score == 20
        asyncio.run(judge.close())
    assert RST_STREAM not in wire.frames()


def test_closing_waits_for_other_tasks_and_none_begins_after() -> None:
    async def work(url: str, script: Script) -> None:
        judge = client(url)
        tasks = [asyncio.create_task(judge.score(grey(index))) for index in range(4)]
        await sent(script, 4)
        await judge.close()
        assert [(await task).score for task in tasks] == [0, 1, 2, 3]
        with pytest.raises(RequestError, match="is closed; connect anew"):
            await judge.score(grey(1))
        await judge.close()  # again does no harm

    with slow_server() as (script, url, _):
        asyncio.run(work(url, script))


def test_tasks_loops_and_threads_share_one_client() -> None:
    """Each gets its own answer."""
    script = Script(delay_s=0.002)
    with scripted_server(script) as url:
        judge = client(url)

        async def ask(first: int) -> list[Score]:
            return await asyncio.gather(*(judge.score(grey(first + index)) for index in range(60)))

        got: dict[int, list[Score]] = {}
        threads = [
            threading.Thread(target=lambda first=first: got.update({first: asyncio.run(ask(first))}))
            for first in (0, 60, 120, 180)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(judge.close())
    assert {first: [score.score for score in scores] for first, scores in got.items()} == {
        first: [*range(first, first + 60)] for first in (0, 60, 120, 180)
    }


def test_the_loop_goes_on_while_images_are_judged() -> None:
    async def work(url: str) -> int:
        beats = 0
        async with client(url) as judge:
            task = asyncio.create_task(judge.judge(grey(1)))
            while not task.done():
                await asyncio.sleep(0.005)
                beats += 1
        return beats

    with slow_server() as (_, url, _wire):
        assert asyncio.run(work(url)) > 10


def test_a_verdict_does_not_wait_for_the_next_image_of_a_line() -> None:
    """A camera's images come when they come; formerly a verdict came with the fourth image after it."""

    async def work(url: str) -> None:
        async with client(url) as judge:
            given: asyncio.Queue[int] = asyncio.Queue()

            async def line() -> AsyncIterator[Any]:
                while (value := await given.get()) >= 0:
                    yield grey(value)

            scores = judge.score_many(line(), in_flight=4)
            for value in range(3):
                given.put_nowait(value)
                assert (await anext(scores)).score == value
            given.put_nowait(-1)
            assert [score async for score in scores] == []

    with scripted_server(Script()) as url:
        asyncio.run(asyncio.wait_for(work(url), 20))


@pytest.mark.parametrize("plain", [False, True])
def test_images_are_read_no_further_ahead_than_the_window(plain: bool) -> None:
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield grey(1)

    async def endless_async() -> AsyncIterator[Any]:
        for image in endless():
            yield image

    async def work(url: str) -> None:
        async with client(url) as judge:
            scores = judge.score_many(endless() if plain else endless_async(), in_flight=3, batch=2)
            for count in range(1, 20):
                await anext(scores)
                await asyncio.sleep(0.01)
                assert read <= count + 3 * 2 + 2
            await scores.aclose()

    with scripted_server(Script()) as url:
        asyncio.run(work(url))


def test_a_flood_is_answered_in_order_although_the_server_refuses() -> None:
    script = Script(room=4, delay_s=0.01)

    async def work(url: str) -> list[float]:
        async with client(url) as judge:
            return [score.score async for score in judge.score_many(map(grey, range(100)), in_flight=200)]

    with scripted_server(script) as url:
        assert asyncio.run(work(url)) == [*range(100)]
    assert script.tries > 100


def test_it_connects_when_first_asked_and_says_nothing_of_the_category_before() -> None:
    async def work(url: str) -> None:
        judge = client(url)
        with pytest.raises(RequestError, match=r"has not connected yet; use it with `async with`, or await"):
            _ = judge.image_size
        assert (await judge.score(grey(3))).score == 3
        assert (judge.image_size, judge.release_id) == (SIZE, 77)
        await judge.close()
        with pytest.raises(RequestError, match="The timeout is 0; expected seconds"):
            client(url, timeout_s=0)

    with scripted_server(Script()) as url:
        asyncio.run(work(url))


def test_a_server_that_answers_nothing_holds_no_task_beyond_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Late calls are counted: more of them are not sent, and who would send one waits no longer than it may."""
    monkeypatch.setattr("model_repository.patient_calls.MOST_LATE", 3)

    async def work(url: str) -> float:
        async with client(url) as judge:
            judge.timeout_s = 0.2
            started_s = time.perf_counter()
            ends = await asyncio.gather(*(judge.score(grey(1)) for _ in range(40)), return_exceptions=True)
            assert {type(end) for end in ends} == {DeadlineExceeded}
            with pytest.raises(DeadlineExceeded):
                await judge.score(grey(1))
            judge.timeout_s = TIMEOUT_S
            return time.perf_counter() - started_s

    with slow_server(delay_s=1) as (script, url, wire):
        assert asyncio.run(work(url)) < 1
        assert script.tries <= 40
    assert RST_STREAM not in wire.frames()
