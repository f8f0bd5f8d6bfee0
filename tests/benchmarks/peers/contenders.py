"""The servers that are compared: how each is started, asked, and put under the same load."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from client.benchmark.measured import Load
from client.benchmark.perf_analyzer import PerfAnalyzer, image_inputs
from client.core.errors import BenchmarkError
from deploy.installation import prepare
from deploy.ports import Ports, claim_ports
from deploy.processes import ending_with_parent
from model_repository.grpc_channel import connect
from tests.benchmarks.load import Pixels, closed_loop
from tests.benchmarks.releases import MAX_BATCH_SIZE, publish, serving
from tests.benchmarks.results import FOLDER
from tests.products import ROOT, copy_backends

HOST = "127.0.0.1"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
TIMEOUT_S = 60  # of a request


@dataclass(frozen=True)
class Contender(ABC):
    """A running server that judges images.

    Attributes:
        name: for people.
        pid: of its first process; the others descend from it.
    """

    name: str
    pid: int

    @abstractmethod
    def ask(self, image: Pixels) -> NDArray[np.float32]:
        """The anomaly map [S, S] of an image [S, S, 3]."""

    @abstractmethod
    def load(self, images: Pixels, *, concurrency: int, requests: int) -> Load:
        """Requests of one image each from `images` [N, S, S, 3] in turn, `concurrency` of them in flight."""


@dataclass(frozen=True)
class OverGrpc(Contender):
    """A Triton server; perf_analyzer asks it for all outputs of a model."""

    url: str
    model: str
    perf_analyzer: PerfAnalyzer

    def ask(self, image: Pixels) -> NDArray[np.float32]:
        """See `Contender`."""
        tensor = grpcclient.InferInput("image", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[None])
        with connect(self.url) as client:
            answer = client.infer(self.model, [tensor], client_timeout=TIMEOUT_S)
        return np.array(answer.as_numpy("anomaly_map")[0])

    def load(self, images: Pixels, *, concurrency: int, requests: int) -> Load:
        """See `Contender`."""
        return self.perf_analyzer.measure(
            self.model, self.url, inputs=image_inputs(images), concurrency=concurrency, requests=requests
        )


@dataclass(frozen=True)
class OverHttp(Contender):
    """The FastAPI process; threads with a connection each that stays open ask it."""

    port: int

    @contextlib.contextmanager
    def _connect(self, images: Pixels) -> Iterator[Callable[[int], bytes]]:
        bodies = [image.tobytes() for image in images]
        headers = {"content-type": "application/octet-stream"}
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT_S)) as connection:

            def send(number: int) -> bytes:
                connection.request("POST", "/predict", bodies[number % len(bodies)], headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise BenchmarkError(
                        f"{self.name} answered {answer.status}; expected {int(http.HTTPStatus.OK)}; see its log."
                    )
                return content

            yield send

    def ask(self, image: Pixels) -> NDArray[np.float32]:
        """See `Contender`."""
        with self._connect(image[None]) as send:
            return np.frombuffer(send(0), np.float32).reshape(image.shape[:2])

    def load(self, images: Pixels, *, concurrency: int, requests: int) -> Load:
        """See `Contender`."""
        return closed_loop(lambda: self._connect(images), concurrency=concurrency, requests=requests)


@contextlib.contextmanager
def ensemble(build: Path, category: str, work: Path, perf_analyzer: PerfAnalyzer) -> Iterator[Contender]:
    """Ours: the build published into a repository of its own."""
    repository = work / "model_repository"
    copy_backends(repository)
    publish(build, repository)
    with serving(repository, log=FOLDER / "ensemble.log") as server:
        yield OverGrpc("ensemble", server.pid, server.grpc_url, category, perf_analyzer)


@contextlib.contextmanager
def pytriton(build: Path, category: str, work: Path, perf_analyzer: PerfAnalyzer) -> Iterator[Contender]:
    """The same graphs under `@batch`."""
    ports = claim_ports(HOST, Ports())
    command: list[Any] = [ROOT / ".triton/bin/python", "-m", "tests.benchmarks.peers.pytriton_server"]
    command += ["--build", build.absolute(), "--model", category, "--workspace", work / "pytriton"]
    command += ["--max-batch-size", MAX_BATCH_SIZE, "--ports", ports.http, ports.grpc, ports.metrics]
    environment = prepare(ROOT / ".triton").environment
    log = FOLDER / "pytriton.log"
    with _running(command, environment=environment, log=log) as process:
        url = f"{HOST}:{ports.grpc}"
        _wait(process, lambda: _serves(url, category), log=log)
        yield OverGrpc("pytriton @batch", process.pid, url, category, perf_analyzer)


@contextlib.contextmanager
def fastapi(checkpoint: Path) -> Iterator[Contender]:
    """The checkpoint in torch.

    Raises:
        BenchmarkError: FastAPI is not installed, or the server does not start.
    """
    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise BenchmarkError("FastAPI is not installed; install it with `pip install '.[bench-peers]'`.")
    port = claim_ports(HOST, Ports()).http
    command: list[Any] = [sys.executable, "-m", "tests.benchmarks.peers.fastapi_server"]
    command += ["--checkpoint", checkpoint.absolute(), "--port", port]
    log = FOLDER / "fastapi.log"
    with _running(command, environment=dict(os.environ), log=log) as process:
        _wait(process, lambda: _listens(port), log=log)
        yield OverHttp("torch in FastAPI", process.pid, port)


@contextlib.contextmanager
def all_paused_but(active: Contender, contenders: Sequence[Contender]) -> Iterator[None]:
    """Stop the other servers' processes (SIGSTOP), so that none takes a core while one is measured."""
    others = [psutil.Process(contender.pid) for contender in contenders if contender is not active]
    paused = [process for first in others for process in (first, *first.children(recursive=True))]
    for process in paused:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(paused):
            process.resume()


@contextlib.contextmanager
def _running(
    command: Sequence[Any], *, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ending_with_parent([str(part) for part in command]),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], *, log: Path) -> None:
    """Until a server answers.

    Raises:
        BenchmarkError: it ended before, or took too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None:
            raise BenchmarkError(
                f"A server to compare with ended with exit code {process.returncode} before it was ready; see {log}."
            )
        if time.monotonic() > deadline:
            raise BenchmarkError(
                f"A server to compare with was not ready within {START_TIMEOUT_S} s; see {log}."
            )
        time.sleep(0.2)


def _serves(url: str, model: str) -> bool:
    with contextlib.suppress(InferenceServerException), connect(url) as client:
        return bool(client.is_model_ready(model, client_timeout=TIMEOUT_S))
    return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False
