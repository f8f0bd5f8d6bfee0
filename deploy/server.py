"""Start a tritonserver, wait until every model is ready, stop it and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from deploy.errors import ServerError
from deploy.installation import Installation, find_installation
from deploy.lazy_loading import Janitor
from deploy.model_control import REQUEST_TIMEOUT_S, ModelControl
from deploy.model_state import ModelState, model_states
from deploy.ports import Ports, claim_ports, host_address
from deploy.processes import ending_with_parent
from deploy.repository import (
    find_categories,
    first_models,
    largest_batch,
    memory_pools,
    pool_threads,
    served_models,
)
from deploy.server_log import last_words, load_times_s, open_log
from deploy.server_options import (
    IN_FLIGHT_TIMEOUT_S,
    count_gpus,
    grpc_options,
    onnxruntime_options,
    pool_options,
    server_options,
    stub_environment,
    turns_path,
    usable_cores,
)
from model_repository.running_servers import announced

STOP_TIMEOUT_S = IN_FLIGHT_TIMEOUT_S + 10
POLL_S = 0.05


@contextlib.contextmanager
def running_server(
    *,
    repository: Path = Path("model_repository"),
    log: Path = Path("logs/tritonserver.log"),
    host: str = "127.0.0.1",
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    triton_env: Path = Path(".triton"),
    threads: int = 0,
    max_categories: int = 0,
    timeout_s: float = 120,
) -> Iterator[TritonServer]:
    """A tritonserver with every model of a repository ready, for the length of a `with` block.

    Use it from the main thread: the server ends with the thread that started it.

    Args:
        repository: Folder of model folders.
        log: File to which the server's output is appended.
        host: IPv4 address or name to listen on.
        http_port, grpc_port, metrics_port: TCP ports, 0 for a free one.
        triton_env: Environment of the embedded server, used when there is no tritonserver on PATH.
        threads: Threads that a backbone computes with, or the pool that all share on Triton's own ONNX Runtime backend;
            0 for those that were published. Never more than there are cores.
        max_categories: Categories in memory at a time. The first ones are loaded; when a client loads another, the
            least recently used is unloaded. 0 loads all and unloads none.
        timeout_s: Time in which every model must be ready.

    Raises:
        InstallationError, RepositoryError, PortError, ServerError: the server cannot be started.
        ServerError: it died, was not ready in time, or a model failed to load. Nothing is left running.
    """
    models = first_models(repository, max_categories) if max_categories else served_models(repository)
    installation = find_installation(triton_env)
    host = host_address(host)
    ports = claim_ports(host, Ports(http=http_port, grpc=grpc_port, metrics=metrics_port))
    server = TritonServer(
        installation,
        repository,
        models,
        log=log,
        host=host,
        ports=ports,
        threads=threads,
        timeout_s=timeout_s,
    )
    try:
        server.wait_until_ready()
    except BaseException:
        server.kill()
        raise
    try:
        with announced(repository, server.grpc_url), contextlib.ExitStack() as stack:
            if max_categories:
                categories = find_categories(repository)
                stack.enter_context(Janitor(server.http_url, categories, max_categories=max_categories))
            yield server
    finally:
        server.stop()


class TritonServer:
    """A tritonserver process, started on construction; `running_server` also waits for it and stops it.

    Attributes:
        grpc_url: `host:port`, as Triton's clients want it.
        http_url: `http://host:port`.
        metrics_url: `http://host:port/metrics`.
        log: File with its output.
        origin: Where its binary comes from, for people.
        ready_s: Seconds from start to every model ready.
        turns: File that a backbone holds a lock on while it computes with every core.
    """

    def __init__(
        self,
        installation: Installation,
        repository: Path,
        models: Sequence[str],
        *,
        log: Path,
        host: str,
        ports: Ports,
        threads: int,
        timeout_s: float,
    ) -> None:
        # "Every address" is nothing that a client can connect to.
        address = "127.0.0.1" if host == "0.0.0.0" else host
        self.grpc_url = f"{address}:{ports.grpc}"
        self.http_url = f"http://{address}:{ports.http}"
        self.metrics_url = f"http://{address}:{ports.metrics}/metrics"
        self.log = log
        self.origin = installation.origin
        self.ready_s = 0.0
        self._models = models
        self._metrics_address = (address, ports.metrics)
        self._shm_prefix = f"astmfr_{secrets.token_hex(4)}_"
        self.turns = turns_path(self._shm_prefix)
        self._timeout_s = timeout_s
        options = server_options(
            repository, models, host=host, ports=ports, shm_prefix=self._shm_prefix, timeout_s=timeout_s
        )
        options += pool_options(memory_pools(repository), gpus=count_gpus())
        options += grpc_options(largest_batch(repository))
        cores = usable_cores()
        options += onnxruntime_options(min(threads or pool_threads(repository) or cores, cores))
        environment = installation.environment | stub_environment(threads, shm_prefix=self._shm_prefix)
        self._start([*installation.command, *options], environment)

    @property
    def pid(self) -> int:
        """Process id, which is also the process group of the server's Python stubs."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the server runs."""
        return self._process.poll()

    def models(self) -> list[ModelState]:
        """State of every model that was to be loaded, in natural order of their names.

        Raises:
            ServerError: the server does not answer.
        """
        try:
            index = ModelControl(self.http_url).index()
        except ServerError as error:
            raise ServerError(f"{error.message.rstrip('.')}; see {self.log}.") from None
        return model_states(self._models, index, self._log_text())

    def wait_until_ready(self) -> None:
        """Wait until every model is ready.

        Raises:
            ServerError: the server died, was not ready in time, or a model failed to load.
        """
        # The endpoints open once the server has tried to load every model, that of the metrics last.
        while not self._listens():
            if self.exit_code is not None:
                raise ServerError(
                    f"tritonserver ended with exit code {self.exit_code} before it was ready: "
                    f"{last_words(self._log_text())}; see {self.log}."
                )
            if time.monotonic() > self._started_s + self._timeout_s:
                loaded = load_times_s(self._log_text())
                waiting = ", ".join(name for name in self._models if name not in loaded) or "its endpoints"
                raise ServerError(
                    f"tritonserver was not ready within {self._timeout_s:g} s, waiting for {waiting}; "
                    f"see {self.log}, or give it longer with --timeout-s."
                )
            time.sleep(POLL_S)
        if failed := [model for model in self.models() if model.state != "READY"]:
            # An ensemble repeats the fault of the step that it depends on.
            causes = [model for model in failed if " depends on " not in model.reason] or failed
            reasons = "; ".join(f"model {model.name} did not load: {model.reason}" for model in causes)
            raise ServerError(f"{reasons}; see {self.log}.")
        self.ready_s = time.monotonic() - self._started_s

    def wait(self) -> int:
        """Wait until the server ends and give back its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Stop the server once requests in flight are answered; kill it after 20 s or a second Ctrl-C."""
        if self.exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.terminate()
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the server and its stubs, and free the shared memory they leave behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):
            region.unlink(missing_ok=True)

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        with open_log(self.log, f"\n=== {datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(command)}\n") as output:
            self._log_start = output.tell()
            self._started_s = time.monotonic()
            self._process = subprocess.Popen(
                ending_with_parent(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for us alone: we stop the server, and it stops its stubs.
                start_new_session=True,
            )

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self._metrics_address, REQUEST_TIMEOUT_S):
            return True
        return False

    def _log_text(self) -> str:
        try:
            return self.log.read_bytes()[self._log_start :].decode(errors="replace")
        except OSError:  # somebody has removed it
            return ""
