"""Ray, started on this machine or asked for elsewhere, without its own talk; what its machines have is compared."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import psutil

from client.archiving.machines.nodes import first_words
from client.archiving.work import StoppedError
from client.core.errors import RequestError

LOOPBACK = "127.0.0.1"
LOOPBACK_HOSTS = ("127.", "localhost:", "[::1]:")
# With 0 Ray takes no address that others reach in place of the loopback address.
OTHER_ADDRESS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
TOKEN_BYTES = 32
OBJECT_STORE_BYTES = 128 << 20  # paths and rows of a few shards; Ray takes no less than 75 MB
CONNECT_TIMEOUT_S = 5.0
JOIN_TIMEOUT_S = 60.0  # some seconds, on a machine that has nothing else to do
LOOK_S = 0.2  # between looks at whether the run is to stop
MOST_SAID = 300  # characters of Ray's reason
JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    sys.exit(" ".join(str(error.__cause__ or error).split()))
"""
NOT_STARTED = (
    "Ray cannot be started here",
    "on a busy machine it may take too long: run the same command again, which goes on with what is not done",
)
TOKEN_HINT = (
    "this machine has to be one of the cluster's, joined with `ray start --address`, with the same Ray and Python; "
    f"where the cluster asks for a token, set {AUTH_MODE}=token, and {AUTH_TOKEN} unless ~/.ray/auth_token holds it"
)
LONGEST_FOLDER = 30  # characters; Ray puts sockets below it, whose paths may have 107
FOLDER_PREFIX = "astmfr-ray-"  # the process that made it follows
QUIET = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # of connecting to a cluster, each up to 40 s
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # or the thread of a run that was stopped would start Ray once more
    "RAY_task_oom_retries": "2",  # of a task whose worker Ray ends for want of memory; by itself for ever
}


@contextlib.contextmanager
def ray_cluster(address: str | None, *, workers: int, stop: threading.Event) -> Iterator[None]:
    """Ray for the length of a `with` block.

    Args:
        address: of a cluster, host:port or `auto`; without one it is started on this machine, reached by it alone, and
            ended afterwards with all that it has written.
        workers: that there are to be.
        stop: once it is set, Ray is waited for no longer.

    Raises:
        RequestError: it is not there, has other versions, or cannot be started.
        StoppedError: `stop` was set, or a signal came, before Ray was there.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        _keep_to_this_machine()
        with _temporary_folder() as folder, _session(_local_options(folder, workers), *NOT_STARTED):
            yield
        return
    found = _require_address(address)
    if found.startswith(LOOPBACK_HOSTS):
        os.environ[OTHER_ADDRESS] = "0"
    _require_joinable(found, stop)
    with _session({"address": found}, f"The Ray cluster at {found} cannot be used", TOKEN_HINT):
        _require_cpus(workers)
        yield


def _keep_to_this_machine() -> None:
    """Let Ray listen at the loopback address alone, and obey this run alone: its own token would be a file at home."""
    os.environ[OTHER_ADDRESS] = "0"
    os.environ.setdefault(AUTH_MODE, "token")
    os.environ.setdefault(AUTH_TOKEN, secrets.token_hex(TOKEN_BYTES))


def _local_options(folder: Path, workers: int) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": workers,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": str(folder),
        "_node_ip_address": LOOPBACK,
    }


@contextlib.contextmanager
def _session(options: dict[str, Any], fault: str, remedy: str) -> Iterator[None]:
    """A connection to Ray, closed afterwards.

    Raises:
        RequestError: there is none; `fault` begins the sentence, and `remedy` ends it.
        StoppedError: a signal came before it was there.
    """
    import ray

    # What befalls workers Ray prints among our output, the last of it when it ends, whatever it is told.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            try:
                with _silence(), _interruptible():
                    ray.init(**options, logging_level=logging.CRITICAL, log_to_driver=False)
            except KeyboardInterrupt:
                raise StoppedError("Interrupted.") from None
            except Exception as error:  # of many kinds; what Ray says is the reason
                raise RequestError(f"{fault} ({first_words(error)}); {remedy}.") from None
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first signal end what is in the block, after those who wait for one have heard of it.

    Ray takes SIGTERM for itself; it is given back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        heard = before[signal.Signals(number)]
        if callable(heard):
            heard(number, frame)
        raise KeyboardInterrupt

    for number, heard in before.items():
        if callable(heard):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, heard in before.items():
            signal.signal(number, heard)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep off standard error what Ray's library writes there by itself, a line a try."""
    stderr = 2
    kept, nowhere = os.dup(stderr), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stderr)
        yield
    finally:
        os.dup2(kept, stderr)
        os.close(kept)
        os.close(nowhere)


def _require_address(address: str) -> str:
    """The host:port of a cluster; makes sure, in seconds, that something answers there as Ray does.

    What Ray wrote down of the cluster on this machine tells where `auto` is.
    """
    found = address
    if address == "auto":
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        with contextlib.suppress(OSError):
            found = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
        if found == "auto":
            return found  # Ray looks among the processes
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise RequestError(
            f"--address {address} is not host:port of a Ray cluster; give that of its head node (its port is 6379 "
            "unless it was started with another one), or auto on a machine of the cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(
            f"No Ray cluster answers at {found} ({reason}); start one with `ray start --head`, or leave out "
            "--address to work on this machine."
        ) from None
    return found


def _require_joinable(address: str, stop: threading.Event) -> None:
    """Make sure that this machine can give work to the cluster.

    In a process of its own: where something else than Ray answers, Ray waits for minutes and heeds no signal.

    Raises:
        RequestError: it cannot.
        StoppedError: `stop` was set meanwhile.
    """
    if address != "auto" and not os.environ.get("RAY_USE_TLS") and not _speaks_grpc(address):
        raise RequestError(
            f"What answers at {address} is not the head node of a Ray cluster; give the address that `ray start "
            "--head` printed (its port is 6379 unless it was started with another one)."
        )
    command = [sys.executable, "-c", JOIN, address]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        # In a session of its own, so that Ctrl-C reaches this process alone.
        joining = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        given_up_s = time.monotonic() + JOIN_TIMEOUT_S
        try:
            while joining.poll() is None and time.monotonic() < given_up_s:
                if stop.wait(LOOK_S):
                    raise StoppedError("Interrupted.")
        finally:
            joining.kill()
            joining.wait()
        said.seek(0)
        words = (said.read().strip().splitlines() or [f"no answer of Ray's within {JOIN_TIMEOUT_S:g} s"])[-1]
    if joining.returncode != 0:
        reason = words.partition(" Last connection error: Traceback")[0][:MOST_SAID].rstrip(". ")
        raise RequestError(f"The Ray cluster at {address} cannot be used ({reason}); {TOKEN_HINT}.")


def _speaks_grpc(address: str) -> bool:
    """Whether what listens there answers as Ray's head node does, in seconds."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _require_cpus(workers: int) -> None:
    """Make sure that a cluster is large enough, for Ray would wait for ever."""
    import ray

    there = int(ray.cluster_resources().get("CPU", 0))
    if there < workers:
        raise RequestError(
            f"The cluster has {there} CPUs, and each of {workers} workers needs one; give fewer --workers."
        )


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for Ray's files, removed afterwards; with those of runs that were killed."""
    place = Path(tempfile.gettempdir())
    if len(str(place)) > LONGEST_FOLDER:
        place = Path("/tmp")
    for left in place.glob(f"{FOLDER_PREFIX}*"):
        pid = left.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
