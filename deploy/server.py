"""Start a tritonserver, wait until every model is ready, stop it and leave nothing behind."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from deploy.errors import ServerError
from deploy.installation import Installation, find_installation
from deploy.lazy_loading import CategoryLimit
from deploy.model_control import REQUEST_TIMEOUT_S, ModelControl
from deploy.model_state import ModelState, causes, model_states
from deploy.ports import Place, Ports, claim_ports, host_address
from deploy.processes import start_in_own_session
from deploy.protection.protection import LOCAL, Protection
from deploy.protection.secrets import redacted
from deploy.repository import find_categories, first_models, require_plain_path
from deploy.server_command import server_command
from deploy.server_log import last_words, load_times_s, open_log
from deploy.server_options import IN_FLIGHT_TIMEOUT_S, turns_path
from deploy.supervision.draining import ANSWER_S, drain
from deploy.supervision.log_pump import LogPump
from deploy.supervision.shared_memory import Regions, require_shared_memory, sweep
from deploy.supervision.supervisor import Supervisor
from deploy.tracing.tracing import OFF, Tracing
from model_repository.running_servers import announced

STOP_TIMEOUT_S = IN_FLIGHT_TIMEOUT_S + 10
GRACE_S = 10.0
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
    protection: Protection = LOCAL,
    tracing: Tracing = OFF,
) -> Iterator[TritonServer]:
    """A tritonserver with every model of a repository ready, for the length of a `with` block; it ends if it dies.

    `deploy.supervision.supervised` has one that is started again. Use it from the main thread: the server ends with the
    thread that started it.

    Args:
        repository: Folder of model folders.
        log: File to which the server's output is appended.
        host: IPv4 address or name to listen on.
        http_port, grpc_port, metrics_port: TCP ports, 0 for a free one.
        triton_env: Environment of the embedded server, used when there is no tritonserver on PATH.
        threads: Threads of each backbone, or of the pool that all share on ONNX Runtime, a core each; 0: as published.
        max_categories: Categories in memory at a time. The first ones are loaded; when a client loads another, the
            least recently used is unloaded. 0 loads all and unloads none.
        timeout_s: Time in which every model must be ready.
        protection: Who may connect and ask what; the default is for programs of this machine.
        tracing: Which requests are traced, and where their spans go.

    Raises:
        InstallationError, RepositoryError, PortError, ServerError: the server cannot be started.
        ServerError: it died, was not ready in time, or a model failed to load. Nothing is left running.
    """
    models = first_models(repository, max_categories)
    place = Place(host, Ports(http=http_port, grpc=grpc_port, metrics=metrics_port), log, protection, tracing)
    start = launcher(repository, models, place, triton_env=triton_env, threads=threads, timeout_s=timeout_s)
    server = start(models)
    try:
        server.wait_until_ready()
    except BaseException:
        server.kill()
        raise
    try:
        with announced(repository, server.grpc_url), contextlib.ExitStack() as stack:
            if max_categories:
                limit = CategoryLimit(find_categories(repository), max_categories)
                stack.enter_context(Supervisor(server, repository, limit=limit))
            yield server
    finally:
        server.stop()


def launcher(
    repository: Path, models: Sequence[str], place: Place, *, triton_env: Path, threads: int, timeout_s: float
) -> Callable[..., TritonServer]:
    """What starts a server, with such models, again and again on the same ports; arguments as of `running_server`.

    Raises:
        InstallationError, RepositoryError, PortError, ServerError: the server cannot be started here.
    """
    require_plain_path(repository)
    installation = find_installation(triton_env)
    host = host_address(place.host)
    sweep()
    require_shared_memory(repository, models)
    return functools.partial(
        TritonServer,
        installation,
        repository,
        log=place.log,
        host=host,
        ports=claim_ports(host, place.ports),
        protection=place.protection,
        tracing=place.tracing,
        threads=threads,
        timeout_s=timeout_s,
    )


class TritonServer:
    """A tritonserver process, started on construction; `running_server` also waits for it and stops it.

    Attributes:
        grpc_url: `host:port`, as Triton's clients want it.
        http_url: `http://host:port`.
        metrics_url: `http://host:port/metrics`.
        log: File with its output.
        origin: Where its binary comes from, for people.
        ready_s: Seconds from start to every model ready.
        started_with: Models that it was told to load.
        turns: File that a backbone holds a lock on while it computes with every core.
        pump: What carries its output into the log.
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
        again: bool = False,
        protection: Protection = LOCAL,
        tracing: Tracing = OFF,
    ) -> None:
        # "Every address" is nothing that a client can connect to.
        address = "127.0.0.1" if host == "0.0.0.0" else host
        self.grpc_url = f"{address}:{ports.grpc}"
        self.http_url = f"http://{protection.http_address or address}:{ports.http}"
        self.metrics_url = f"http://{address}:{ports.metrics}/metrics"
        self.log, self.origin = log, installation.origin
        self.ready_s, self.started_with = 0.0, models
        self._metrics_address = (address, ports.metrics)
        self._again, self._timeout_s = again, timeout_s
        self._regions = Regions()
        self.turns = turns_path(self._regions.prefix)
        self._control_headers = protection.http_headers
        command = server_command(
            installation,
            repository,
            models,
            host=host,
            ports=ports,
            shm_prefix=self._regions.prefix,
            threads=threads,
            timeout_s=timeout_s,
            protection=protection,
            tracing=tracing,
        )
        self._start(command.arguments, installation.environment | command.variables)

    @property
    def pid(self) -> int:
        """Process id, which is also the process group of the server's Python stubs."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the server runs."""
        return self._process.poll()

    def control(self, *, timeout_s: float = REQUEST_TIMEOUT_S) -> ModelControl:
        """What loads and unloads its models; it has the key to that."""
        return ModelControl(self.http_url, timeout_s=timeout_s, headers=self._control_headers)

    def models(self) -> list[ModelState]:
        """State of every model that was to be loaded, in natural order of their names.

        Raises:
            ServerError: the server does not answer.
        """
        try:
            index = self.control().index()
        except ServerError as error:
            raise ServerError(f"{error.message.rstrip('.')}; see {self.log}.") from None
        return model_states(self.started_with, index, self.log_text())

    def wait_until_ready(self) -> None:
        """Wait until every model is ready.

        Raises:
            ServerError: the server died, was not ready in time, or a model failed to load.
        """
        self.wait_until_open()
        if failed := self.failed_models():
            reasons = "; ".join(f"model {model.name} did not load: {model.reason}" for model in failed)
            raise ServerError(f"{reasons}; see {self.log}.")

    def wait_until_open(self, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until the server has tried to load every model, or until `given_up` says so.

        Raises:
            ServerError: it died, or was not there in time.
        """
        # The endpoints open once the server has tried to load every model, that of the metrics last.
        while not self._listens() and not given_up():
            if self.exit_code is not None:
                self.pump.join()
                raise ServerError(
                    f"tritonserver ended with exit code {self.exit_code} before it was ready: "
                    f"{last_words(self.log_text())}; see {self.log}."
                )
            if time.monotonic() > self._started_s + self._timeout_s:
                loaded = load_times_s(self.log_text())
                awaited = [name for name in self.started_with if name not in loaded] or ["its endpoints"]
                raise ServerError(
                    f"tritonserver was not ready within {self._timeout_s:g} s, waiting for {', '.join(awaited)}; "
                    f"see {self.log}, or give it longer with --timeout-s."
                )
            time.sleep(POLL_S)
        self.ready_s = time.monotonic() - self._started_s

    def failed_models(self) -> list[ModelState]:
        """The models that are not ready; where a step is the cause, not the ensembles over it.

        Raises:
            ServerError: the server does not answer.
        """
        return causes([model for model in self.models() if model.state != "READY"])

    def wait(self) -> int:
        """Wait until the server ends and give back its exit code."""
        return self._process.wait()

    def stop(self, *, grace_s: float = GRACE_S) -> None:
        """Stop the server once what it has accepted is answered; kill it after 20 s more or a second Ctrl-C.

        Args:
            grace_s: seconds for what is in flight.
        """
        if self.exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                if self.ready_s:
                    drain(self.control(timeout_s=ANSWER_S), within_s=grace_s)
                self._process.terminate()
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the server and its stubs, and free the shared memory they leave behind."""
        self.kill_group()
        self._process.wait()
        self.pump.join()
        self._regions.free()

    def kill_group(self) -> None:
        """Kill the server and its stubs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        header = f"\n=== {datetime.now():%Y-%m-%d %H:%M:%S} {redacted(' '.join(command))}\n"
        self.pump = LogPump(open_log(self.log, header, again=self._again))
        self._regions.lock()
        self._started_s = time.monotonic()
        try:
            self._process = start_in_own_session(command, environment, output=self.pump.write_end)
        except BaseException:
            self._regions.free()
            raise
        finally:
            self.pump.close_write_end()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self._metrics_address, REQUEST_TIMEOUT_S):
            return True
        return False

    def log_text(self) -> str:
        """What the server has written since its start: the first 4 MiB of it, and the last 256 KiB."""
        return self.pump.text()
