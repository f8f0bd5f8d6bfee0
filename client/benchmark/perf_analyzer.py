"""Run Triton's own perf_analyzer with real images, and read every request's latency out of its export."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.benchmark.measured import Load
from client.console import console
from client.core.errors import BenchmarkError
from client.files import storage_errors
from model_repository.grpc_channel import direct_environment
from model_repository.grpc_endpoint import Endpoint

CANDIDATES = (".triton/bin/perf-analyzer", "perf_analyzer")
START_TIMEOUT_S = 60.0  # to start, connect and read the images
IMAGE_TIMEOUT_S = 2.0  # of each image; far more than any chain takes on any CPU
ATTEMPTS = 2  # once in some hundred runs perf_analyzer 2.51 waits for ever before it has sent anything
# Libraries that tritonclient's binary needs and a machine may lack, and what installs them.
LIBRARIES = {
    "libb64.so.0d": "Debian's libb64-0d",
    "libcudart.so.12": "`pip install nvidia-cuda-runtime-cu12`, its nvidia/cuda_runtime/lib on LD_LIBRARY_PATH",
}
MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
MISSING_GLIBC = re.compile(r"version `(GLIBC(?:XX)?_[\d.]+)' not found")


class PerfAnalyzer:
    """The perf_analyzer binary."""

    def __init__(self, executable: str | None) -> None:
        """Find the binary and ask it for its version.

        Raises:
            BenchmarkError: none is found, or it cannot run here.
        """
        candidates = [executable] if executable else list(CANDIDATES)
        path = next(filter(None, map(shutil.which, candidates)), None)
        if path is None:
            raise BenchmarkError(
                f"perf_analyzer is not found ({', '.join(candidates)}); `make setup` brings it."
            )
        self.path = path
        self.version = self._run(["--version"]).strip()

    def measure(
        self,
        model: str,
        server: Endpoint | str,
        *,
        inputs: Sequence[Mapping[str, Any]],
        concurrency: int,
        requests: int,
        batch: int = 1,
        megapixels: float = 0.0,
    ) -> Load:
        """Send `requests` requests of `batch` images each over gRPC, `concurrency` of them in flight.

        The `inputs`, which `image_inputs` or `encoded_inputs` makes, are sent in turn; `megapixels` are those of an
        image, for one larger than 1 may take longer.

        Raises:
            BenchmarkError: perf_analyzer failed.
            StorageError: the folder for temporary files is full.
        """
        endpoint = Endpoint.of(server)
        with tempfile.TemporaryDirectory() as folder:
            input_path, export_path = Path(folder, "images.json"), Path(folder, "profile.json")
            with storage_errors(input_path):
                input_path.write_text(json.dumps({"data": list(inputs)}), encoding="utf-8")
            options = {
                "-m": model,
                "-u": endpoint.url,
                "-i": "grpc",
                "-b": batch,
                "--input-data": input_path,
                "--concurrency-range": concurrency,
                "--request-count": requests,
                "--request-parameter": "probe:true:bool",  # no parts, and not counted as such
                "--profile-export-file": export_path,
            }
            timeout_s = START_TIMEOUT_S + IMAGE_TIMEOUT_S * requests * batch * max(1.0, megapixels)
            self._run(
                [str(part) for option in options.items() for part in option] + tls_options(endpoint),
                timeout_s=timeout_s,
                environment=direct_environment(endpoint.url),
            )
            return read_profile(export_path, batch=batch)

    def _run(
        self,
        arguments: list[str],
        *,
        timeout_s: float = START_TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        for _ in range(ATTEMPTS):
            try:
                done = subprocess.run(
                    [self.path, *arguments],
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    timeout=timeout_s,
                    check=False,
                    env=environment,
                )
                break
            except subprocess.TimeoutExpired:
                console.print(f"perf_analyzer was not done after {timeout_s:.0f} s and was stopped.")
            except OSError as error:
                raise BenchmarkError(f"{self.path} cannot run here ({error}).") from None
        else:
            raise BenchmarkError(
                f"{self.path} was not done after {timeout_s:.0f} s, {ATTEMPTS} times; does the server answer?"
            )
        if done.returncode != 0:
            raise BenchmarkError(failure(self.path, done.returncode, done.stderr + done.stdout))
        return done.stdout + done.stderr  # the version is printed to standard error


def tls_options(endpoint: Endpoint) -> list[str]:
    """perf_analyzer's options for the certificates of an endpoint; it sends no keys, which requests do not need."""
    if endpoint.tls is None:
        return []
    files = {
        "root-certifications": endpoint.tls.authority,
        "certificate-chain": endpoint.tls.certificate,
        "private-key": endpoint.tls.key,
    }
    named = [(f"--ssl-grpc-{name}-file", str(path)) for name, path in files.items() if path is not None]
    return ["--ssl-grpc-use-ssl", *(part for option in named for part in option)]


def failure(path: str, exit_code: int, text: str) -> str:
    """Why a binary failed, in one sentence; for a missing library also what installs it."""
    if missing := MISSING_LIBRARY.search(text):
        library = missing[1]
        remedy = LIBRARIES.get(library, "your distribution's package with it")
        return f"{path} lacks the shared library {library}; `make setup` brings a perf_analyzer with it, else {remedy}."
    if missing := MISSING_GLIBC.search(text):
        return (
            f"{path} was built for a newer system than this one ({missing[1]} is missing); use the perf_analyzer that "
            "`make setup` brings, which runs from glibc 2.34 on."
        )
    lines = text.strip().splitlines() or ["no message"]
    reason = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    return f"{path} failed with exit code {exit_code}: {reason}."


def image_inputs(images: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Images [N, H, W, 3] in perf_analyzer's input format: raw bytes in base64."""
    shape = list(images.shape[1:])
    return [{"image": {"b64": _base64(image.tobytes()), "shape": shape}} for image in images]


def encoded_inputs(files: Sequence[bytes]) -> list[dict[str, Any]]:
    """Image files in the same format: a BYTES tensor is its length in four bytes, then itself."""
    return [
        {"encoded_image": {"b64": _base64(struct.pack("<I", len(file)) + file), "shape": [1]}}
        for file in files
    ]


def read_profile(path: Path, *, batch: int = 1) -> Load:
    """Latencies and throughput from a `--profile-export-file`."""
    # The inputs stand in it too, and an image file's bytes are no UTF-8.
    profile: Any = json.loads(path.read_bytes().decode(errors="replace"))
    requests = profile["experiments"][0]["requests"]
    starts = np.array([request["timestamp"] for request in requests], np.int64)  # nanoseconds
    ends = np.array([request["response_timestamps"][-1] for request in requests], np.int64)
    seconds = (ends.max() - starts.min()) / 1e9
    return Load(((ends - starts) / 1e6).tolist(), throughput=batch * len(requests) / float(seconds))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
