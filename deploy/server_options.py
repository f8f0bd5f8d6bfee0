"""The command line and the environment that a server is started with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.ports import Ports

IN_FLIGHT_TIMEOUT_S = 10  # for requests that the server is still answering when it is told to stop
# Every Python model has a region in /dev/shm, where a container has 64 MiB for all of them unless told
# otherwise. A region grows by itself when a request needs more.
SHM_BYTES = 4 << 20


def server_options(
    repository: Path, models: Sequence[str], *, host: str, ports: Ports, shm_prefix: str, timeout_s: float
) -> list[str]:
    """Options of tritonserver that load exactly `models` and listen on `host` alone.

    Args:
        repository: Folder of model folders.
        models: Names of the models to load.
        host: IPv4 address to listen on.
        ports: Ports to listen on.
        shm_prefix: How the names of this server's regions in /dev/shm begin.
        timeout_s: Time that a Python model has to start.
    """
    python_backend = {
        "shm-region-prefix-name": shm_prefix,
        "shm-default-byte-size": SHM_BYTES,
        "shm-growth-byte-size": SHM_BYTES,
        "stub-timeout-seconds": max(1, round(timeout_s)),
    }
    return [
        f"--model-repository={repository.absolute()}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models),
        # Our configurations are complete. To complete them the server would start every Python model twice,
        # which takes more than a second each.
        "--disable-auto-complete-config",
        # A server that stays up with a broken model can be asked why it is broken.
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--exit-timeout-secs={IN_FLIGHT_TIMEOUT_S}",
        f"--http-address={host}",
        f"--grpc-address={host}",
        f"--metrics-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items()),
    ]


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that share out `threads` CPU threads; the Python models' stubs inherit them."""
    # One thread for numpy: the fusion's small matrix products would only fight the backbones for cores.
    return {"ASTMFR_INTRA_OP_THREADS": str(threads), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
