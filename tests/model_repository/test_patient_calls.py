"""No call is cancelled, whatever becomes of who made it: tritonserver 2.51 dies of that.

A proxy stands between client and server, and notes which HTTP/2 frames the client sends.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from model_repository import patient_calls
from model_repository.grpc_channel import TritonClient, connect
from tests.client.judging.scripted_server import SIZE, Script, scripted_server
from tests.deploy.conftest import comes_true
from tests.http2_wire import HEADERS, RST_STREAM, Wire, watched
from tests.products import ROOT

DELAY_S = 0.5

LEAVING = """
import sys
import numpy as np
import tritonclient.grpc as grpcclient
from model_repository.grpc_channel import connect
client = connect(sys.argv[1])
client.is_model_ready("pill")
tensor = grpcclient.InferInput("image", [1, 8, 8, 3], "UINT8").set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
def leave():
    client.async_infer("pill", [tensor], callback=lambda result, error: None)
    try:
        client.infer("pill", [tensor], client_timeout=0.1)
    except Exception as error:
        print(error)
leave()
"""


@contextmanager
def slow_server() -> Iterator[tuple[Script, TritonClient, Wire]]:
    """A server that answers after DELAY_S, a client of it, and what that sends."""
    script = Script(delay_s=DELAY_S)
    with scripted_server(script) as url, watched(url) as (proxy, wire):
        client = connect(proxy)
        try:
            client.is_model_ready("pill")
            yield script, client, wire
        finally:
            client.close()
            assert comes_true(lambda: len(script.asked) == script.tries, within_s=20)
            time.sleep(0.1)


def image() -> grpcclient.InferInput:
    pixels = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    return grpcclient.InferInput("image", list(pixels.shape), "UINT8").set_data_from_numpy(pixels)


def send(client: TritonClient, script: Script, number: int = 1) -> list[Any]:
    """Send requests; gives the list that their ends are put into."""
    ends: list[Any] = []
    for _ in range(number):
        client.async_infer("pill", [image()], callback=lambda result, error: ends.append(error))
    assert comes_true(lambda: script.tries == number, within_s=20)
    return ends


def test_the_wait_ends_at_the_deadline_and_the_call_does_not() -> None:
    with slow_server() as (script, client, wire):
        started = time.perf_counter()
        with pytest.raises(InferenceServerException, match="Deadline Exceeded") as caught:
            client.infer("pill", [image()], client_timeout=0.1)
        assert 0.1 <= time.perf_counter() - started < DELAY_S
        assert str(caught.value.status()) == "StatusCode.DEADLINE_EXCEEDED"
    assert len(script.asked) == 1
    assert HEADERS in wire.frames()
    assert RST_STREAM not in wire.frames()


def test_closing_and_forgetting_a_client_waits_for_its_calls() -> None:
    """gRPC's own channel cancels them."""
    with slow_server() as (script, client, wire):
        ends = send(client, script, 3)
        client.close()
        with pytest.raises(ValueError, match="closed channel"):
            client.infer("pill", [image()])
        del client
        gc.collect()
        assert comes_true(lambda: ends == [None] * 3, within_s=20)
    assert RST_STREAM not in wire.frames()


def test_an_interrupted_wait_leaves_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with slow_server() as (script, client, wire):
        with monkeypatch.context() as patched:
            patched.setattr("grpc._channel._MultiThreadedRendezvous.result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.infer("pill", [image()])
        gc.collect()
        assert comes_true(lambda: len(script.asked) == 1, within_s=20)
    assert RST_STREAM not in wire.frames()


def test_a_process_that_ends_cancels_nothing() -> None:
    script = Script(delay_s=2)
    with scripted_server(script) as url, watched(url) as (proxy, wire):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", LEAVING, proxy],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "Deadline Exceeded" in done.stdout
        assert time.perf_counter() - started < 20
        assert len(script.asked) < script.tries == 2
    assert wire.frames().count(HEADERS) >= 3
    assert RST_STREAM not in wire.frames()


def test_the_proxy_sees_what_cancels() -> None:
    """A test of the tests above: tritonclient alone cancels at a deadline."""
    script = Script(delay_s=DELAY_S)
    with scripted_server(script) as url, watched(url) as (proxy, wire):
        with (
            grpcclient.InferenceServerClient(proxy) as client,
            pytest.raises(InferenceServerException),
        ):
            client.infer("pill", [image()], client_timeout=0.1)
        assert comes_true(lambda: RST_STREAM in wire.frames(), within_s=20)


def test_a_server_that_answers_nothing_is_given_only_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_calls, "MOST_LATE", 3)
    with slow_server() as (script, client, _):
        for _ in range(3):
            with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
                client.infer("pill", [image()], client_timeout=0.01)
        with pytest.raises(InferenceServerException, match="3 calls before it are not answered either"):
            client.infer("pill", [image()], client_timeout=0.05)
        assert script.tries <= 3
        client.infer("pill", [image()], client_timeout=20)  # has room as soon as one of them has ended
