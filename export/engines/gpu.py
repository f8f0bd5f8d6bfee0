"""Which GPU this machine has, and which GPUs TensorRT takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from export.errors import ExportError

# Turing: TensorRT 10.5 dropped Volta, and Triton's containers of 2026 start here too (their release notes).
OLDEST_COMPUTE_CAPABILITY = "7.5"
TIMEOUT_S = 30


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability, `8.9` say."""

    name: str
    compute_capability: str


def local_gpu() -> Gpu | None:
    """The GPU that this process would compute on, or None where nvidia-smi lists none.

    nvidia-smi counts GPUs by their place on the bus. This makes CUDA count alike; by itself it puts the fastest first.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    query = [command, f"--id={first}", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    fields = re.match(r"(.+), *(\d+\.\d+) *$", answer, re.MULTILINE)
    return Gpu(fields[1].strip(), fields[2]) if fields else None


def require_gpu() -> Gpu:
    """The GPU that engines are built for.

    Raises:
        ExportError: there is none, or it is too old for TensorRT.
    """
    gpu = local_gpu()
    if gpu is None:
        raise ExportError(
            "nvidia-smi lists no GPU, and TensorRT builds an engine on the kind of GPU that runs it; run this on "
            "the production machine, or `export engine --check` to see whether TensorRT takes the graphs."
        )
    if version_numbers(gpu.compute_capability) < version_numbers(OLDEST_COMPUTE_CAPABILITY):
        raise ExportError(
            f"{gpu.name} has compute capability {gpu.compute_capability}; TensorRT needs {OLDEST_COMPUTE_CAPABILITY} "
            "or later (Turing); publish with --platform onnxruntime."
        )
    return gpu


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.13.3.9` as numbers that can be compared; a suffix such as `.post1` is left out.

    Raises:
        ExportError: it does not begin with a number.
    """
    numbers = re.match(r"\d+(\.\d+)*(?!\d)", version)
    if numbers is None:
        raise ExportError(f"{version!r} is no version; expected numbers and points, 8.9 or 10.13.3 say.")
    return tuple(int(part) for part in numbers[0].split("."))
