"""What the ensemble is measured against: teacher and student in one process, with nothing around them."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import BenchmarkError

FEATURES = ("teacher_1", "teacher_2", "teacher_3")
DISTANCES = ("distance_1", "distance_2", "distance_3")


class Spinning(StrEnum):
    """When the threads of a session that have nothing to do spin; it decides much on few cores."""

    ALWAYS = "always"  # ONNX Runtime's default: between runs too, where the other session needs the core
    NEVER = "never"
    DURING_RUNS = "during runs"  # what the served backbones do


class BareChain:
    """teacher.onnx, then student.onnx, in ONNX Runtime on the CPU."""

    def __init__(self, build: Path, *, threads: int, spinning: Spinning) -> None:
        """Open both graphs.

        Args:
            build: folder with the two files, build/<category>.
            threads: of each session.
            spinning: when idle threads spin.

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
        spins, stops = spinning != Spinning.NEVER, spinning == Spinning.DURING_RUNS
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        options.add_session_config_entry("session.force_spinning_stop", str(int(stops)))
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
