"""The command line and the environment that a server is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.ports import Ports
from deploy.repository import largest_batch, memory_pools, pool_threads

IN_FLIGHT_TIMEOUT_S = 10  # for requests that the server is still answering when it is stopped
# Every Python model has a region in /dev/shm, where a container has 64 MiB for all of them unless told
# otherwise. A region grows by itself when a request needs more.
SHM_BYTES = 4 << 20
PINNED_POOL_BYTES = 256 << 20  # Triton's own default; less is not worth asking for
CUDA_POOL_BYTES = 64 << 20
# Of glibc's malloc, in the server's process: over 40 releases it grew from 150 MiB to 330 with two, and else to 661.
MALLOC_ARENAS = "2"
KEPT_ANSWERS = 8  # Triton's own default
MOST_KEPT_ANSWERS = 128
PILLOW_BLOCKS = "4"  # of 16 MiB at most, a decoder: a picture of 16 megapixels


def command_options(
    repository: Path,
    models: Sequence[str],
    *,
    host: str,
    http_host: str,
    ports: Ports,
    shm_prefix: str,
    threads: int,
    timeout_s: float,
    cores: int | None = None,
    gpus: int | None = None,
    served_from: Path | None = None,
) -> list[str]:
    """All options of tritonserver for the models of a repository; arguments as of `server_options`.

    `cores` and `gpus` are those of the machine that will run it, this one's where None.

    The pool that all models on ONNX Runtime's own backend share has `threads`, never more than there are cores; 0 for
    those that were published.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    cores = usable_cores() if cores is None else cores
    return [
        *server_options(
            served_from or repository,
            models,
            host=host,
            http_host=http_host,
            ports=ports,
            shm_prefix=shm_prefix,
            timeout_s=timeout_s,
        ),
        *pool_options(memory_pools(repository), gpus=count_gpus() if gpus is None else gpus),
        *grpc_options(largest_batch(repository)),
        *onnxruntime_options(min(threads or pool_threads(repository) or cores, cores)),
    ]


def server_options(
    repository: Path,
    models: Sequence[str],
    *,
    host: str,
    http_host: str,
    ports: Ports,
    shm_prefix: str,
    timeout_s: float,
) -> list[str]:
    """Options of tritonserver that load exactly `models` and listen on `host`, an IPv4 address, alone.

    HTTP listens on `http_host`. `shm_prefix` begins the names of this server's regions in /dev/shm; a Python model has
    `timeout_s` to start.
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
        # Triton heeds priorities only with this: a spare instance is asked only while the first one is busy.
        "--rate-limit=execution_count",
        f"--http-address={http_host}",
        f"--grpc-address={host}",
        f"--metrics-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items()),
    ]


def pool_options(asked: Mapping[str, int], *, gpus: int) -> list[str]:
    """Options for memory pools as large as `memory_pools` asks, one a GPU; none where it asks for none."""
    if not asked:
        return []
    cuda = max(asked.get("cuda_pool_bytes", 0), CUDA_POOL_BYTES)
    pinned = max(asked.get("pinned_pool_bytes", 0), PINNED_POOL_BYTES)
    return [
        f"--pinned-memory-pool-byte-size={pinned}",
        *(f"--cuda-memory-pool-byte-size={gpu}:{cuda}" for gpu in range(gpus)),
    ]


def grpc_options(largest_batch: int) -> list[str]:
    """As many requests and answers kept ready as are in flight when batches are full; none where Triton's own do.

    A step has a batch running in each of two instances and another one waiting. What is kept holds on to its memory, so
    that a bound is set.
    """
    if largest_batch <= KEPT_ANSWERS:
        return []
    return [f"--grpc-infer-allocation-pool-size={min(3 * largest_batch, MOST_KEPT_ANSWERS)}"]


def onnxruntime_options(threads: int) -> list[str]:
    """Options of Triton's own ONNX Runtime backend: all models share one pool of `threads`.

    With a pool each, whose threads spin, every further model takes the cores from all others. Numbers of threads in
    configurations are ignored then. A server without that backend takes the options and does nothing with them.
    """
    settings = {"enable-global-threadpool": 1, "intra_op_thread_count": threads}
    return [f"--backend-config=onnxruntime,{key}={value}" for key, value in settings.items()]


def usable_cores() -> int:
    """Cores that the server may use: this process's affinity, which it inherits."""
    return len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """NVIDIA's GPUs that this machine shows."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def turns_path(shm_prefix: str) -> Path:
    """The file that a server's backbones lock to take turns; it is removed with the server's shared memory."""
    return Path("/dev/shm") / f"{shm_prefix}turns"


def stub_environment(threads: int, *, shm_prefix: str) -> dict[str, str]:
    """Environment variables of the server, which the Python models' stubs inherit.

    A backbone computes with `threads` in place of those in its configuration; 0 leaves those.
    """
    # One thread for numpy: the fusion's small matrix products would only fight the backbones for cores.
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": MALLOC_ARENAS,
        # To Triton, a __pycache__ in a model's folder is a change: it would reload the model, and each ensemble over
        # it, together with the next category that is loaded.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Memory of decoded pictures is kept for the next one: new pages take a tenth of the time of decoding.
        "PILLOW_BLOCKS_MAX": PILLOW_BLOCKS,
        "ASTMFR_TURNS": str(turns_path(shm_prefix)),
        **({"ASTMFR_INTRA_OP_THREADS": str(threads)} if threads else {}),
    }
