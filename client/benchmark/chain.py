"""What the ensemble is measured against: teacher and student in one process, with nothing around them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.benchmark.machine import usable_cores
from client.core.errors import BenchmarkError
from model_repository.onnx_contents import OnnxError, require_plain

FEATURES = ("teacher_1", "teacher_2", "teacher_3")
DISTANCES = ("distance_1", "distance_2", "distance_3")
GRAPHS = ("teacher.onnx", "student.onnx")
TRIAL_ROUNDS = 3
TRIAL_RUNS = 20  # of each setting in each round
WARM_UP_RUNS = 3


class Spinning(StrEnum):
    """When the idle threads of a session spin instead of sleeping; on few cores that decides much."""

    ALWAYS = "always"  # ONNX Runtime's default: between runs too, where the other session needs the core
    NEVER = "never"
    DURING_RUNS = "during runs"  # what the served backbones do


@dataclass(frozen=True)
class ChainSettings:
    """Threads of each session, and when they spin."""

    threads: int
    spinning: Spinning

    def __str__(self) -> str:
        return f"{self.threads} {'thread' if self.threads == 1 else 'threads'} spinning {self.spinning}"


class BareChain:
    """teacher.onnx, then student.onnx, in ONNX Runtime on the CPU."""

    def __init__(self, build: Path, settings: ChainSettings) -> None:
        """Open both graphs of a folder such as build/<category>, in a session each.

        Raises:
            BenchmarkError: ONNX Runtime or a file is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise BenchmarkError(
                "The bare chain needs onnxruntime; install it with `pip install astmfr[bench]`."
            ) from None
        self.build, self.settings = build, settings
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        spins, stops = settings.spinning != Spinning.NEVER, settings.spinning == Spinning.DURING_RUNS
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        options.add_session_config_entry("session.force_spinning_stop", str(int(stops)))
        self._sessions: list[Any] = []
        for name in GRAPHS:
            path = build / name
            if not path.is_file():
                raise BenchmarkError(f"{path} does not exist; make it with `python -m export onnx`.")
            try:
                require_plain(path)
            except OnnxError as error:
                raise BenchmarkError(f"{path} {error}; export again.") from None
            self._sessions.append(
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            )

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Distance maps [B, h, w] a stage of `images` [B, H, W, 3] uint8."""
        teacher, student = self._sessions
        features = teacher.run(FEATURES, {"image": images})
        distances: list[NDArray[np.float32]] = student.run(
            DISTANCES, {"image": images, **dict(zip(FEATURES, features, strict=True))}
        )
        return distances

    def latencies_ms(self, images: NDArray[np.uint8], *, requests: int, batch: int = 1) -> list[float]:
        """Milliseconds of each of `requests` runs of `batch` images, going through `images` [N, H, W, 3] in turn."""
        latencies = []
        for index in range(requests):
            chosen = images[np.arange(index * batch, (index + 1) * batch) % len(images)]
            started = time.perf_counter()
            self.run(chosen)
            latencies.append(1000 * (time.perf_counter() - started))
        return latencies


def default_settings() -> ChainSettings:
    """ONNX Runtime's own defaults: a thread for every core, spinning always."""
    return ChainSettings(threads=usable_cores(), spinning=Spinning.ALWAYS)


def find_settings(build: Path, images: NDArray[np.uint8]) -> ChainSettings:
    """The settings with the lowest median over single images, each tried in turns.

    Tried are 1, 2, 4, ... threads up to the number of cores, with every kind of spinning.

    Raises:
        BenchmarkError: as `BareChain`.
    """
    cores = usable_cores()
    counts = sorted({*(1 << power for power in range(cores.bit_length())), cores})
    candidates = [
        ChainSettings(threads, spinning)
        for threads in counts
        # A single thread never waits for another one, so it has nothing to spin for.
        for spinning in (Spinning if threads > 1 else [Spinning.NEVER])
    ]
    latencies: dict[ChainSettings, list[float]] = {settings: [] for settings in candidates}
    for _ in range(TRIAL_ROUNDS):
        for settings, latencies_ms in latencies.items():
            chain = BareChain(build, settings)  # each time a new one: the threads of a waiting chain may spin
            chain.latencies_ms(images, requests=WARM_UP_RUNS)
            latencies_ms += chain.latencies_ms(images, requests=TRIAL_RUNS)
    return min(candidates, key=lambda settings: float(np.median(latencies[settings])))
