"""A region belongs to one request until its answer is taken; after a failure it is never used again."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image

from client import JudgeClient
from client.core.errors import ServerError
from client.judging import shared_memory
from deploy.server import TritonServer
from tests.client.judging.scripted_server import FULL_QUEUE, Script, grey, scripted_judge
from tests.deploy.conftest import comes_true
from tests.hanging import hanging
from tests.products import TIMEOUT_S, Product

pytest_plugins = ["tests.serving"]


def test_a_region_is_not_used_again_after_a_deadline() -> None:
    """The server may still write into it: formerly the next call handed over its image in the same one."""
    script = Script()
    with scripted_judge(script, shared_memory=True) as judge:
        judge.score(grey(0))
        judge.score(grey(0))
        assert len(set(script.used)) == 1
        script.delay_s, judge.timeout_s = 1.0, 0.1
        with pytest.raises(ServerError, match=r"No answer from .* within 0\.1 s"):
            judge.score(grey(0))
        with pytest.raises(ServerError, match=r"No answer from .* within 0\.1 s"):
            list(judge.score_many([grey(0)] * 2))
        late = set(script.used)
        assert comes_true(
            lambda: not any(script.busy.values()), within_s=20
        )  # until then the server keeps them
        script.delay_s, judge.timeout_s = 0.0, TIMEOUT_S
        judge.score(grey(0))
        assert len(list(judge.score_many([grey(0)] * 9))) == 9
        assert late.isdisjoint(script.used[5:])
        assert len(script.used) == 5 + 1 + 9
        assert len(script.registered) == 1  # the others were let go
    assert not script.registered


def test_a_region_is_not_used_again_after_an_error() -> None:
    script = Script(refuse=lambda number: FULL_QUEUE if number == 1 else None)
    with scripted_judge(script, shared_memory=True) as judge:
        judge.score(grey(0))  # refused, and sent again for the same image: the region is the same
        script.change = lambda outputs: outputs.pop("pred_score")
        with pytest.raises(ServerError, match="pred_score is missing"):
            judge.score(grey(0))
        script.change = lambda outputs: None
        judge.score(grey(0))
        assert len(dict.fromkeys(script.used)) == 2


def test_a_region_is_not_used_again_after_a_lost_connection() -> None:
    """The request is sent again and answered; the server may still write what it makes of the first try."""
    lost = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    script = Script(refuse=lambda number: lost if number in (1, 4) else None)
    with scripted_judge(script, shared_memory=True) as judge:
        for _ in range(2):
            assert judge.score(grey(0)).score == 0
        assert len(list(judge.score_many([grey(0)] * 3, in_flight=1))) == 3
        first, again, second, third, third_again, *others = script.used
        assert first == again != second
        assert third == third_again != others[0]


def test_a_server_that_answers_nothing_is_not_waited_for_to_tidy_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends at its deadline, however many regions it leaves; they are let go when the server answers again."""
    monkeypatch.setattr(shared_memory, "RELEASE_TIMEOUT_S", 0.2)
    script = Script()
    with scripted_judge(script, shared_memory=True) as judge:
        judge.score(grey(0))
        script.delay_s, script.unregister_s, judge.timeout_s = 1.0, 3.0, 0.1
        started_s = time.perf_counter()
        with pytest.raises(ServerError, match="No answer from"):
            list(judge.score_many([grey(0)] * 6, in_flight=6))
        assert time.perf_counter() - started_s < 1
        script.delay_s, script.unregister_s, judge.timeout_s = 0.0, 0.0, TIMEOUT_S
        assert comes_true(lambda: not any(script.busy.values()), within_s=20)
    assert not script.registered


def test_memory_that_is_full_is_told(own_regions: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Formerly the client ended with a bus error when it wrote there."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(ServerError, match=r"512 bytes cannot be had in /dev/shm \(No space left on device\)"),
        scripted_judge(Script(), shared_memory=True),
    ):
        pass
    assert [region.exists() for region in own_regions] == [False]


@pytest.mark.triton
def test_after_late_answers_the_next_ones_are_right(server: TritonServer, edge: Product) -> None:
    """The real server goes on with requests that were given up, and writes their maps when it likes."""
    pictures = [Image.fromarray(pixels) for pixels in edge.pixels]
    with JudgeClient(server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=True) as judge:
        judge.judge(pictures[0])
        judge.timeout_s = 0.05
        with hanging(server):
            for picture in pictures[:3]:
                with pytest.raises(ServerError, match="No answer from"):
                    judge.judge(picture)
            with pytest.raises(ServerError, match="No answer from"):
                list(judge.judge_many(pictures))
        judge.timeout_s = TIMEOUT_S
        verdicts = [*map(judge.judge, pictures), *judge.judge_many(pictures)]
    for index, verdict in enumerate(verdicts):
        expected = edge.expected.anomaly_map[index % len(pictures)]
        np.testing.assert_allclose(verdict.anomaly_map, expected, rtol=0, atol=1e-3)
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        assert not control.get_system_shared_memory_status().regions


@pytest.mark.triton
@pytest.mark.parametrize("shared_memory", [False, True])
def test_threads_on_one_client_get_their_own_verdicts(
    server: TritonServer, edge: Product, shared_memory: bool
) -> None:
    """Formerly more than half of them were another thread's, with shared memory."""
    wrong: list[int] = []

    def ask(judge: JudgeClient, index: int) -> None:
        picture = Image.fromarray(edge.pixels[index])
        for _ in range(20):
            verdict = judge.judge(picture)
            if not np.allclose(verdict.anomaly_map, edge.expected.anomaly_map[index], rtol=0, atol=1e-3):
                wrong.append(index)

    with JudgeClient(
        server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=shared_memory
    ) as judge:
        threads = [threading.Thread(target=ask, args=(judge, index)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
