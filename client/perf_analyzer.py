"""Run Triton's own perf_analyzer with real images, and read every request's latency out of its export."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import BenchmarkError

CANDIDATES = (".triton/bin/perf-analyzer", "perf_analyzer")
TIMEOUT_S = 900


@dataclass(frozen=True)
class LoadResult:
    """A run of perf_analyzer.

    Attributes:
        latencies_ms: of each request, milliseconds.
        throughput: images a second over the whole run.
    """

    latencies_ms: list[float]
    throughput: float


class PerfAnalyzer:
    """The perf_analyzer binary."""

    def __init__(self, executable: str | None) -> None:
        """Find the binary and ask it for its version.

        Raises:
            BenchmarkError: none is found, or it cannot run here.
        """
        names = [executable] if executable else list(CANDIDATES)
        found = next((path for path in map(shutil.which, names) if path), None)
        if found is None:
            raise BenchmarkError(f"perf_analyzer is not found ({', '.join(names)}); `make setup` brings it.")
        self.path = found
        self.version = self._run(["--version"]).strip()

    def measure(
        self,
        model: str,
        url: str,
        *,
        images: NDArray[np.uint8],
        concurrency: int,
        requests: int,
    ) -> LoadResult:
        """Send `requests` requests of one image each over gRPC.

        Args:
            model: the ensemble.
            url: host:port of the gRPC endpoint.
            images: [N, S, S, 3] uint8, sent in turn.
            concurrency: requests in flight at a time.
            requests: how many in all.

        Raises:
            BenchmarkError: perf_analyzer failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            input_path, export_path = Path(folder, "images.json"), Path(folder, "profile.json")
            write_input_data(images, input_path)
            options = {
                "-m": model,
                "-u": url,
                "-i": "grpc",
                "-b": 1,
                "--input-data": input_path,
                "--concurrency-range": concurrency,
                "--request-count": requests,
                "--profile-export-file": export_path,
            }
            self._run([str(part) for option in options.items() for part in option])
            return read_profile(export_path)

    def _run(self, arguments: list[str]) -> str:
        try:
            done = subprocess.run(
                [self.path, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchmarkError(f"{self.path} cannot run here ({error}).") from None
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no message"]
            told = next((line for line in lines if line.lower().startswith("error")), lines[-1])
            raise BenchmarkError(f"{self.path} failed with exit code {done.returncode}: {told}.")
        return done.stdout + done.stderr  # the version goes to the latter


def write_input_data(images: NDArray[np.uint8], path: Path) -> None:
    """Images in perf_analyzer's input format: raw bytes in base64."""
    shape = list(images.shape[1:])
    entries = [
        {"image": {"b64": base64.b64encode(image.tobytes()).decode(), "shape": shape}} for image in images
    ]
    path.write_text(json.dumps({"data": entries}))


def read_profile(path: Path) -> LoadResult:
    """Latencies and throughput from a `--profile-export-file`."""
    profile: Any = json.loads(path.read_text())
    requests = profile["experiments"][0]["requests"]
    starts = np.array([request["timestamp"] for request in requests], np.int64)  # nanoseconds
    ends = np.array([request["response_timestamps"][-1] for request in requests], np.int64)
    seconds = (ends.max() - starts.min()) / 1e9
    return LoadResult(
        latencies_ms=((ends - starts) / 1e6).tolist(), throughput=len(requests) / float(seconds)
    )
