"""A request is sent again where that helps, within its deadline; nothing waits for ever and nothing is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import grpc
import pytest

from client import ClientError, JudgeClient
from client.core.errors import (
    DeadlineExceeded,
    NotServed,
    RefusedImage,
    RequestError,
    ServerError,
    ServerFault,
    Unreachable,
)
from client.judging import asking
from tests.client.judging.scripted_server import (
    FULL_QUEUE,
    SIZE,
    TIMEOUT_S,
    Script,
    grey,
    png,
    scripted_judge,
    scripted_server,
)
from tests.deploy.conftest import comes_true

LATE = (grpc.StatusCode.UNAVAILABLE, "[request id: <id_unknown>] Request timeout expired")


@pytest.mark.parametrize("refusal", [FULL_QUEUE, LATE], ids=["full queue", "late"])
def test_an_overloaded_server_is_asked_again(refusal: tuple[grpc.StatusCode, str]) -> None:
    script = Script(refuse=lambda number: refusal if number <= 3 else None)
    with scripted_judge(script) as judge:
        assert judge.score(grey(10)).score == 10
        assert script.tries == 4
        script.refuse = lambda number: refusal if number <= 9 else None
        assert [score.score for score in judge.score_many([grey(30), grey(20)])] == [30, 20]


@pytest.mark.parametrize("many", [False, True])
def test_overload_until_the_deadline_is_told(many: bool) -> None:
    script = Script(refuse=lambda number: FULL_QUEUE)
    with scripted_judge(script, timeout_s=0.5) as judge:
        started = time.perf_counter()
        with pytest.raises(ServerError) as caught:
            list(judge.score_many([grey(10)])) if many else judge.score(grey(10))
        assert time.perf_counter() - started < 5
    told = caught.value.message
    times = int(told.split("refused the request ")[1].split(" times")[0])
    assert times > 1
    assert script.tries - times in (0, 1)  # the last try may be too late for its refusal
    assert told == (
        f"The server at {judge.url} is overloaded and refused the request {times} times within 0.5 s "
        "(Exceeds maximum queue size); send fewer at a time."
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.INVALID_ARGUMENT, RefusedImage),
        (grpc.StatusCode.NOT_FOUND, NotServed),
    ],
)
def test_another_error_is_not_asked_again(code: grpc.StatusCode, kind: type[ServerError]) -> None:
    script = Script(refuse=lambda number: (code, "out of paper."))
    with scripted_judge(script) as judge:
        with pytest.raises(kind, match=r"answered: out of paper\.$"):
            judge.score(grey(10))
        assert script.tries == 1
        with pytest.raises(kind, match=r"answered: out of paper\.$"):
            list(judge.score_many([grey(10)]))
        assert script.tries == 2


@pytest.mark.parametrize(
    "fault",
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "in ensemble 'pill', Server is stopping, scheduler for model has stopped",
        ),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'pill' has no available versions"),
        (grpc.StatusCode.INTERNAL, "in ensemble 'pill', Stub process 'pill_student_0_1' is not healthy."),
    ],
    ids=["stopping", "lost", "loading", "step died"],
)
def test_a_request_that_nothing_judged_is_asked_again(fault: tuple[grpc.StatusCode, str]) -> None:
    script = Script(refuse=lambda number: fault if number <= 3 else None)
    with scripted_judge(script) as judge:
        assert judge.score(grey(10)).score == 10
        assert script.tries == 4
        script.refuse = lambda number: fault if number <= 7 else None
        assert [score.score for score in judge.score_many([grey(30), grey(20)])] == [30, 20]


def test_all_tries_have_one_budget() -> None:
    """And a late answer is that of no other request."""
    fault = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    script = Script(refuse=lambda number: fault if number % 2 else None, delay_s=2)
    with scripted_judge(script, timeout_s=0.5) as judge:
        started = time.perf_counter()
        with pytest.raises(DeadlineExceeded, match=r"^No answer from .* within 0\.5 s; is it overloaded\?$"):
            judge.score(grey(10))
        assert 0.5 <= time.perf_counter() - started < 2
        judge.timeout_s, script.delay_s = TIMEOUT_S, 0
        assert judge.score(grey(20)).score == 20


def test_a_fault_while_an_answer_is_read_reaches_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formerly it was raised in gRPC's own thread, and the caller waited for ever."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with scripted_judge(Script()) as judge:
        monkeypatch.setattr(asking, "read_answer", fail)
        with pytest.raises(ZeroDivisionError):
            list(judge.score_many([grey(10), grey(20)]))


def test_a_call_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "GRACE_S", 0.1)
    with scripted_judge(Script(), timeout_s=0.2) as judge:
        monkeypatch.setattr(judge._asker._client, "infer_later", lambda *_, **__: Future())
        with pytest.raises(ServerError, match=r"^No answer from .* within 0\.2 s"):
            list(judge.score_many([grey(10)]))
        judge._asker.calls._calls.clear()  # so that closing does not wait for it


def test_a_server_that_was_started_again_is_found_again() -> None:
    with scripted_server(Script()) as url:
        judge = JudgeClient(url, category="pill", timeout_s=TIMEOUT_S)
        shared = JudgeClient(url, category="pill", timeout_s=TIMEOUT_S, shared_memory=True)
        assert judge.score(grey(10)).score == 10
    with judge, shared:
        judge.timeout_s = 0.5
        with pytest.raises(Unreachable, match="No Triton server answers at"):
            judge.score(grey(10))
        judge.timeout_s = TIMEOUT_S
        again = Script()
        with scripted_server(again, port=int(url.partition(":")[2])):
            assert judge.score(grey(20)).score == 20
            assert shared.score(grey(0)).score == 0  # its region is registered anew
            assert len(again.registered) == 1


def test_a_closed_client_says_so() -> None:
    with scripted_judge(Script()) as judge:
        scores = judge.score_many([grey(10)] * 9)
        assert next(scores).score == 10
    for ask in (
        lambda: judge.score(grey(10)),
        lambda: next(scores),
        lambda: list(judge.score_many([grey(1)])),
    ):
        with pytest.raises(RequestError, match="This JudgeClient is closed; connect anew"):
            ask()
    judge.close()  # again does no harm


@pytest.mark.parametrize("shared_memory", [False, True])
def test_closing_waits_for_the_calls_of_other_threads(shared_memory: bool) -> None:
    ended: list[object] = []

    def ask() -> None:
        try:
            ended.append(judge.score(grey(0)).score)
        except ClientError as error:
            ended.append(error)

    script = Script(delay_s=0.3)
    with scripted_judge(script, shared_memory=shared_memory) as judge:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert comes_true(lambda: script.tries == len(threads), within_s=20)
        judge.close()
        for thread in threads:
            thread.join()
        assert ended == [0.0] * len(threads)
        assert not script.registered


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_category_that_takes_other_images_by_now_is_asked_again(shared_memory: bool) -> None:
    script = Script()
    with scripted_judge(script, shared_memory=shared_memory) as judge:
        assert judge.judge(grey(0)).anomaly_map.shape == (SIZE, SIZE)
        script.size, script.release_id, script.synthetic = 2 * SIZE, 78, True
        if not shared_memory:
            assert judge.judge(png(10)).anomaly_map.shape == (2 * SIZE, 2 * SIZE)
            script.size = SIZE
            assert judge.judge(png(10)).anomaly_map.shape == (SIZE, SIZE)
            script.size = 2 * SIZE
        verdicts = judge.judge_many([grey(0)] * 3)
        assert [verdict.anomaly_map.shape for verdict in verdicts] == [(2 * SIZE, 2 * SIZE)] * 3
        script.size = 3 * SIZE
        assert judge.judge(grey(0)).anomaly_map.shape == (3 * SIZE, 3 * SIZE)
        assert (judge.image_size, judge.release_id, judge.synthetic) == (3 * SIZE, 78, True)


@pytest.mark.parametrize("shared_memory", [False, True])
def test_threads_find_a_category_that_was_published_anew(shared_memory: bool) -> None:
    script, sizes, faults = Script(), [], []

    def ask() -> None:
        try:
            sizes.extend(len(judge.judge(grey(0)).anomaly_map) for _ in range(30))
        except ClientError as error:
            faults.append(error.message)

    with scripted_judge(script, shared_memory=shared_memory) as judge:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert comes_true(lambda: script.tries > 20, within_s=20)
        script.size = 2 * SIZE
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(sizes) == 4 * 30
        assert judge.image_size == sizes[-1] == 2 * SIZE


def test_another_release_in_the_middle_is_named_and_followed() -> None:
    script = Script()
    with scripted_judge(script) as judge:
        scores = judge.score_many([grey(10)] * 4, in_flight=1)
        assert next(scores).release_id == judge.release_id == 77
        script.release_id, script.synthetic = 78, True
        assert [score.release_id for score in scores] == [78] * 3
        assert (judge.release_id, judge.synthetic) == (78, True)


def test_a_release_that_keeps_shapes_by_now_is_asked_again() -> None:
    script = Script()
    wide = grey(10).resize((2 * SIZE, SIZE))
    with scripted_judge(script) as judge:
        assert judge.judge(wide).anomaly_map.shape == (SIZE, SIZE)
        script.release_id, script.aspect, tries = 78, "keep", script.tries
        assert judge.judge(wide).anomaly_map.shape == (SIZE // 2, SIZE)
        assert (judge.keep_aspect, script.tries) == (True, tries + 2)
