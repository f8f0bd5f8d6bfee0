"""Clients of a real server in trouble: deadlines, a restart, many at once, and what each of its errors becomes."""

from __future__ import annotations

import fcntl
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from client import DeadlineExceeded, JudgeClient, Overloaded, Score
from client.benchmark.perf_analyzer import PerfAnalyzer, image_inputs
from client.core.errors import (
    NotAllowed,
    NotServed,
    RefusedImage,
    ServerError,
    ServerFault,
    Unreachable,
)
from client.core.faults import fault_of
from deploy import server as deploy_server
from deploy import server_options
from deploy.ports import Ports, claim_ports
from deploy.protection.protection import Protection
from deploy.server import TritonServer, running_server
from deploy.supervision.stalls import read_work
from model_repository.grpc_channel import TritonClient, connect
from model_repository.grpc_endpoint import Endpoint, Tls
from tests.certificates import Authority
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny

pytestmark = pytest.mark.triton

SIDE = 64
PICTURE = Image.new("RGB", (SIDE, SIDE), "gray")
CLIENTS = 4
MANY = 200
QUEUE = 16
WAITING = 12
RECONNECT_S = 2.0
KEY = {"admin": "s3cret"}


@pytest.fixture(scope="module")
def repository(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny category whose queues hold QUEUE requests."""
    models = copy_backends(tmp_path_factory.mktemp("trouble") / "models")
    publish_tiny(tiny_build / CATEGORY, models)
    for config in models.glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace("max_queue_size: 64", f"max_queue_size: {QUEUE}"))
    return models


@pytest.fixture
def serve(repository: Path, tmp_path: Path) -> Callable[..., TritonServer]:
    """Start the server: `stack.enter_context(serve(grpc_port=8001))`."""
    return lambda **ports: running_server(  # type: ignore[return-value]
        repository=repository,
        log=tmp_path / "log",
        triton_env=ROOT / ".triton",
        protection=Protection(client_shm=True),
        **ports,
    )


@pytest.fixture
def server(serve: Callable[..., ExitStack]) -> Iterator[TritonServer]:
    with serve() as running:
        yield running


def in_threads(ask: Callable[[], None], number: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread], *, timeout_s: float) -> None:
    for thread in threads:
        thread.join(timeout_s)
    assert not any(thread.is_alive() for thread in threads)


def test_deadlines_that_pass_do_not_kill_the_server(server: TritonServer) -> None:
    """Formerly each of them cancelled its call, and the server died of SIGSEGV after 36 s (of `cancel()` after 4 s)."""
    pid, until_s = server.pid, time.monotonic() + 10
    ends: Counter[str] = Counter()

    def ask() -> None:
        with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
            generator = np.random.default_rng()
            while time.monotonic() < until_s:
                judge.timeout_s = generator.uniform(0.0005, 0.015)
                try:
                    judge.score(PICTURE)
                    ends["judged"] += 1
                except (DeadlineExceeded, Overloaded) as error:
                    ends[type(error).__name__] += 1

    join(in_threads(ask, CLIENTS), timeout_s=60)
    print(f"{dict(ends)} with deadlines of 0.5 to 15 ms in 10 s")
    assert ends["DeadlineExceeded"] > 100
    assert (server.exit_code, server.pid) == (None, pid)
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        assert judge.score(PICTURE).release_id == judge.release_id


def test_the_server_drops_what_clients_gave_up_on(server: TritonServer) -> None:
    """No backbone computes meanwhile, so that only what is refused leaves the queues."""
    ends: Counter[str] = Counter()

    def ask() -> None:
        with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
            judge.timeout_s = 0.5
            connected.wait(TIMEOUT_S)
            try:
                judge.score(PICTURE)
            except (DeadlineExceeded, Overloaded) as error:
                ends[type(error).__name__] += 1

    def waiting() -> int:
        return sum(work.waiting for work in read_work(server.control(), server.metrics_url).values())

    connected = threading.Barrier(WAITING + 1)
    with server.turns.open("a") as turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        threads = in_threads(ask, WAITING)
        connected.wait(TIMEOUT_S)
        join(threads, timeout_s=60)
        assert sum(ends.values()) == WAITING
        emptied = comes_true(lambda: waiting() == 0, within_s=5)
        fcntl.flock(turns, fcntl.LOCK_UN)
    assert emptied
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        assert judge.score(PICTURE).release_id == judge.release_id


@pytest.mark.parametrize(
    ("how", "shared_memory"),
    [(signal.SIGKILL, False), (signal.SIGTERM, True)],
    ids=["killed, wire", "stopped, shared memory"],
)
def test_clients_see_no_error_when_the_server_is_restarted(
    serve: Callable[..., ExitStack], how: signal.Signals, shared_memory: bool
) -> None:
    port = claim_ports("127.0.0.1", Ports()).grpc
    answered: list[float] = []
    faults: list[str] = []
    stop, url = threading.Event(), f"127.0.0.1:{port}"

    def ask() -> None:
        with JudgeClient(url, category=CATEGORY, timeout_s=TIMEOUT_S, shared_memory=shared_memory) as judge:
            while not stop.is_set():
                try:
                    judge.score(PICTURE) if not shared_memory else judge.judge(PICTURE)
                    answered.append(time.monotonic())
                except ServerError as error:
                    faults.append(f"{type(error).__name__}: {error.message}")

    with serve(grpc_port=port) as server:
        threads = in_threads(ask, CLIENTS)
        time.sleep(1)
        before = len(answered)
        os.kill(server.pid, how)
        server.wait()
    try:
        with serve(grpc_port=port):
            ready_s = time.monotonic()
            time.sleep(RECONNECT_S + 0.5)
            stop.set()
            join(threads, timeout_s=TIMEOUT_S)
    finally:
        stop.set()
    first_s = min(second for second in answered if second > ready_s - RECONNECT_S) - ready_s
    print(f"{len(answered)} answered, {len(faults)} failed; the first {first_s:+.2f} s after readiness")
    assert faults == []
    assert before > 0
    assert first_s < RECONNECT_S
    assert len(answered) > before + CLIENTS


def test_two_hundred_clients_at_once_on_a_queue_of_sixteen(server: TritonServer) -> None:
    deadline_s = 5.0
    ends: list[tuple[str, float]] = []

    with ExitStack() as stack:
        judges = [
            stack.enter_context(JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S))
            for _ in range(MANY)
        ]
        alone_ms = statistics.median(judges[0].score(PICTURE).latency_ms for _ in range(20))
        waiting = iter(judges)
        lock = threading.Lock()

        def ask() -> None:
            with lock:
                judge = next(waiting)
            judge.timeout_s = deadline_s
            started_s = time.monotonic()
            try:
                end = type(judge.score(PICTURE)).__name__
            except (Overloaded, DeadlineExceeded) as error:
                end = type(error).__name__
            ends.append((end, time.monotonic() - started_s))

        join(in_threads(ask, MANY), timeout_s=60)
        time.sleep(5)
        after_ms = statistics.median(judges[0].score(PICTURE).latency_ms for _ in range(20))
    counts = Counter(end for end, _ in ends)
    longest_s = max(seconds for _, seconds in ends)
    print(
        f"{dict(counts)}, the longest {longest_s:.2f} s; alone {alone_ms:.1f} ms before, {after_ms:.1f} after"
    )
    assert counts.total() == MANY
    assert set(counts) <= {Score.__name__, Overloaded.__name__}
    assert longest_s < deadline_s + 0.5
    assert after_ms < 3 * alone_ms + 5


def image(side: int = SIDE, *, batch: int = 1) -> grpcclient.InferInput:
    pixels = np.zeros((batch, side, side, 3), np.uint8)
    return grpcclient.InferInput("image", list(pixels.shape), "UINT8").set_data_from_numpy(pixels)


def no_image() -> grpcclient.InferInput:
    return grpcclient.InferInput("encoded_image", [1, 1], "BYTES").set_data_from_numpy(
        np.array([[b"no image"]], np.object_)
    )


def fault(call: Callable[[], object]) -> tuple[type[ServerError], bool, str]:
    """What a call that fails is taken for, and whether it would be made again."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    found = fault_of(caught.value)
    return found.kind, found.again, str(caught.value)


def add_options(monkeypatch: pytest.MonkeyPatch, *added: str) -> None:
    """Have the server started with more options than `deploy` has."""
    options = server_options.grpc_options
    for module in (deploy_server, server_options):
        monkeypatch.setattr(module, "grpc_options", lambda batch: [*options(batch), *added], raising=False)


def kill_stubs(server: TritonServer, model: str) -> None:
    """Kill the processes of a step."""
    stubs = [
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if any(f"/{model}/" in part for part in process.cmdline())
    ]
    assert stubs
    for process in stubs:
        process.kill()


def test_what_each_error_of_the_server_is_taken_for(
    serve: Callable[..., ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table in `client/judging/faults.py`, row by row."""
    restricted = "--grpc-restricted-protocol=model-repository,statistics:admin=s3cret"
    add_options(monkeypatch, restricted)
    with ExitStack() as stack:
        server = stack.enter_context(serve())
        client = stack.enter_context(closing(connect(server.grpc_url)))
        admin = stack.enter_context(closing(connect(Endpoint(server.grpc_url, keys=KEY))))
        wrong = stack.enter_context(closing(connect(Endpoint(server.grpc_url, keys={"admin": "wrong"}))))
        for unknown in (client, wrong):
            kind, again, _ = fault(lambda unknown=unknown: unknown.load_model(CATEGORY))
            assert (kind, again) == (NotAllowed, False)
        with pytest.raises(
            NotServed, match=r"'nut' is not served at .*; what it serves, it says only with a"
        ):
            JudgeClient(server.grpc_url, category="nut", timeout_s=TIMEOUT_S)
        with pytest.raises(
            NotAllowed, match=r"only with a key \(.*triton-grpc-protocol-admin'\); give the key"
        ):
            JudgeClient(server.grpc_url, category="nut", timeout_s=TIMEOUT_S, load=True)
        admin.load_model(CATEGORY)
        assert flood(client) == {(Overloaded, True)}
        for bad in (image(2 * SIDE), image(batch=9), no_image()):
            assert fault(lambda bad=bad: client.infer(CATEGORY, [bad]))[:2] == (RefusedImage, False)
        assert fault(lambda: client.infer(f"{CATEGORY}_encoded", [no_image()]))[:2] == (RefusedImage, False)
        assert fault(lambda: client.infer("nothing", [image()]))[:2] == (NotServed, False)
        late = fault(lambda: client.infer(CATEGORY, [image()], client_timeout=0.0001))
        assert late[:2] == (DeadlineExceeded, False)
        kill_stubs(server, "distance_fusion")
        assert fault(lambda: client.infer(CATEGORY, [image()], client_timeout=TIMEOUT_S))[:2] == (
            ServerFault,
            True,
        )
        admin.unload_model(CATEGORY)
        time.sleep(0.5)
        assert fault(lambda: client.infer(CATEGORY, [image()]))[:2] == (NotServed, True)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        assert fault(lambda: client.infer(CATEGORY, [image()], client_timeout=TIMEOUT_S))[:2] == (
            Unreachable,
            True,
        )


def test_mutual_tls(serve: Callable[..., ExitStack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real server, and perf_analyzer beside this client; tests/model_repository has every other case."""
    authority, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    own, client, stranger = authority.sign("server"), authority.sign("client"), foreign.sign("stranger")
    secure = [
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={own.certificate}",
        f"--grpc-server-key={own.key}",
        f"--grpc-root-cert={authority.path}",
    ]
    add_options(monkeypatch, *secure)
    with serve() as server:
        endpoint = Endpoint(server.grpc_url, Tls(authority.path, client.certificate, client.key))
        with JudgeClient(endpoint, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
            assert judge.score(PICTURE).release_id == judge.release_id
        inputs = image_inputs(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        load = PerfAnalyzer(None).measure(CATEGORY, endpoint, inputs=inputs, concurrency=1, requests=10)
        assert len(load.latencies_ms) >= 10
        for tls in (None, Tls(authority.path), Tls(authority.path, stranger.certificate, stranger.key)):
            with pytest.raises(Unreachable, match="--tls-cert and --tls-key"):
                JudgeClient(Endpoint(server.grpc_url, tls), category=CATEGORY, timeout_s=TIMEOUT_S)


def flood(client: TritonClient) -> set[tuple[type[ServerError], bool]]:
    """The faults of more requests at once than the queues take."""
    faults, ended = set(), threading.Semaphore(0)

    def end(result: object, error: InferenceServerException | None) -> None:
        if error is not None:
            found = fault_of(error)
            faults.add((found.kind, found.again))
        ended.release()

    for _ in range(MANY):
        client.async_infer(CATEGORY, [image()], callback=end)
    assert all(ended.acquire(timeout=TIMEOUT_S) for _ in range(MANY))
    return faults
