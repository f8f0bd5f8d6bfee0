"""What the ensemble is measured against: teacher and student in one process, with nothing around them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import BenchmarkError

FEATURES = ("teacher_1", "teacher_2", "teacher_3")
DISTANCES = ("distance_1", "distance_2", "distance_3")
TRIAL_ROUNDS, TRIAL_REQUESTS = 3, 10


class BareChain:
    """teacher.onnx, then student.onnx, in ONNX Runtime on the CPU."""

    def __init__(self, build: Path, *, threads: int, spinning: bool) -> None:
        """Open both graphs.

        Args:
            build: folder with the two files, build/<category>.
            threads: of each session.
            spinning: let idle threads spin, as ONNX Runtime does unless told otherwise.

        Raises:
            BenchmarkError: ONNX Runtime or a file is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise BenchmarkError(
                "The bare chain needs onnxruntime; install it with `pip install astmfr[bench]`."
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self.spinning = spinning
        self._sessions: list[Any] = []
        for name in ("teacher.onnx", "student.onnx"):
            path = build / name
            if not path.is_file():
                raise BenchmarkError(f"{path} does not exist; make it with `python -m export onnx`.")
            self._sessions.append(
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            )

    def run(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Distance maps [B, h, h] a stage of `image` [B, S, S, 3] uint8."""
        teacher, student = self._sessions
        features = teacher.run(FEATURES, {"image": image})
        distances: list[NDArray[np.float32]] = student.run(
            DISTANCES, {"image": image, **dict(zip(FEATURES, features, strict=True))}
        )
        return distances

    def latencies_ms(self, images: NDArray[np.uint8], *, requests: int) -> list[float]:
        """Milliseconds of each of `requests` runs at batch 1, going through `images` [N, S, S, 3] in turn."""
        latencies = []
        for index in range(requests):
            image = images[index % len(images)][None]
            started = time.perf_counter()
            self.run(image)
            latencies.append(1000 * (time.perf_counter() - started))
        return latencies


def fastest_chain(build: Path, *, threads: int, images: NDArray[np.uint8]) -> BareChain:
    """The chain at its best: with spinning threads or without, whichever is faster on this machine.

    Raises:
        BenchmarkError: see `BareChain`.
    """
    chains = [BareChain(build, threads=threads, spinning=spinning) for spinning in (False, True)]
    trials: list[list[float]] = [[] for _ in chains]
    for _ in range(TRIAL_ROUNDS):
        for chain, latencies in zip(chains, trials, strict=True):
            latencies += chain.latencies_ms(images, requests=TRIAL_REQUESTS)
    medians = [float(np.median(latencies)) for latencies in trials]
    return chains[int(np.argmin(medians))]
