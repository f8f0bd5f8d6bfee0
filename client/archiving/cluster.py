"""Ray, started on this machine or asked for elsewhere, without its own talk; what its machines have is compared."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from client.archiving.nodes import NOT_INSTALLED, Look, fault_of, look_around
from client.core.errors import RequestError

LOOPBACK = "127.0.0.1"
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
TOKEN_BYTES = 32
OBJECT_STORE_BYTES = 128 << 20  # paths and rows of a few shards; Ray takes no less than 75 MB
CONNECT_TIMEOUT_S = 5.0
LONGEST_FOLDER = 30  # characters; Ray puts sockets below it, whose paths may have 107
FOLDER_PREFIX = "astmfr-ray-"  # the process that made it follows
QUIET = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # of connecting to a cluster, each up to 40 s
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@contextlib.contextmanager
def ray_cluster(address: str | None, *, workers: int) -> Iterator[None]:
    """Ray for the length of a `with` block.

    Args:
        address: of a cluster, host:port or `auto`; without one it is started on this machine, reached by it alone, and
            ended afterwards with all that it has written.
        workers: that there are to be.

    Raises:
        RequestError: it is not there, has other versions, or cannot be started.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        _keep_to_this_machine()
        with (
            _temporary_folder() as folder,
            _session(_local_options(folder, workers), "Ray cannot be started here"),
        ):
            yield
        return
    _require_address(address)
    with _session({"address": address}, f"The Ray cluster at {address} cannot be used"):
        _require_cpus(workers)
        yield


def require_alike(images: list[bytes]) -> None:
    """Make sure that all machines of the cluster have this one's versions, and the images.

    Raises:
        RequestError: one does not.
    """
    if fault := fault_of(look_around(images), _look_at_nodes(images)):
        raise RequestError(fault)


def _keep_to_this_machine() -> None:
    """Let Ray listen at the loopback address alone, and obey this run alone: its own token would be a file at home."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
        "0"  # then Ray does not look for an address that others reach
    )
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
def _session(options: dict[str, Any], fault: str) -> Iterator[None]:
    """A connection to Ray, closed afterwards.

    Raises:
        RequestError: there is none; `fault` begins the sentence.
    """
    import ray

    before = signal.getsignal(signal.SIGTERM)
    try:
        with _silence():
            ray.init(**options, logging_level=logging.CRITICAL, log_to_driver=False)
    except Exception as error:  # of many kinds; what Ray says is the reason
        ray.shutdown()
        token = "" if AUTH_MODE in os.environ else f"; where it asks for a token, set {AUTH_MODE}=token"
        raise RequestError(f"{fault} ({_first_words(error)}){token}.") from None
    finally:
        with contextlib.suppress(ValueError):  # of a thread that may set none, and then Ray has not either
            signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


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


def _require_address(address: str) -> None:
    """Make sure, in seconds, that somebody answers there; Ray itself tries for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise RequestError(
            f"--address {address} is not host:port of a Ray cluster; give that of its head node (its port is 6379 "
            "unless it was started with another one), or auto on a machine of the cluster."
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(
            f"No Ray cluster answers at {address} ({reason}); start one with `ray start --head`, or leave out "
            "--address to work on this machine."
        ) from None


def _require_cpus(workers: int) -> None:
    """Make sure that a cluster is large enough, for Ray would wait for ever."""
    import ray

    there = int(ray.cluster_resources().get("CPU", 0))
    if there < workers:
        raise RequestError(
            f"The cluster has {there} CPUs, and each of {workers} workers needs one; give fewer --workers."
        )


def _look_at_nodes(images: list[bytes]) -> list[Look]:
    """What each machine of the cluster has."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    missing_project = {"astmfr": NOT_INSTALLED}

    # In here, so that Ray sends the function itself: a machine without this project says so.
    def look(images: list[bytes]) -> Any:
        import socket

        try:
            from client.archiving.nodes import look_around
        except ImportError:
            return socket.gethostname(), missing_project, frozenset()
        look = look_around(images)
        return look.node, look.versions, look.missing

    task = ray.remote(num_cpus=0, max_retries=1)(look)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            images
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        return [Look(*each) for each in ray.get(asked)]
    except Exception as error:
        raise RequestError(f"A node of the cluster runs no task ({_first_words(error)}).") from None


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


def _first_words(error: Exception) -> str:
    """What an error says, on one line: Ray's have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4]).rstrip(". ") or type(error).__name__
