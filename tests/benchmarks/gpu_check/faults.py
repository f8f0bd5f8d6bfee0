"""What a GPU can be unusable for, one sentence each."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Sequence

import torch

FREE_SHARE = 0.8  # of the card's memory; less is somebody else's work
BUSY_PERCENT = 20


def fault_of(error: str, *, torch_version: str, cuda: str | None) -> str:
    """What torch says when it cannot start CUDA, as a sentence with a remedy."""
    if cuda is None:
        return f"torch {torch_version} is built for CPUs alone; install one for CUDA, or give --device cpu."
    if "driver on your system is too old" in error:
        found = error.partition("found version ")[2].partition(")")[0]
        version = f" for CUDA {int(found) // 1000}.{int(found) % 1000 // 10}" if found.isdecimal() else ""
        return (
            f"The NVIDIA driver{version} is too old for torch {torch_version}, which is built for CUDA {cuda}; install "
            f"a driver for CUDA {cuda} or later, or a torch that is built for yours."
        )
    if "busy or unavailable" in error:
        return (
            "The GPU is in use by another process alone (exclusive mode); stop that process, or wait for it."
        )
    if "no CUDA-capable device" in error or "Found no NVIDIA driver" in error or not error:
        return (
            "No GPU was found (look at nvidia-smi and CUDA_VISIBLE_DEVICES); run this where there is one, or give "
            "--device cpu for a try in tiny sizes."
        )
    return f"CUDA does not start ({' '.join(error.split())[:200]}); look at nvidia-smi, or give --device cpu."


def cuda_fault() -> str | None:
    """Why CUDA cannot be used here; None where it can."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.zeros(1, device="cuda").cpu()
            return None
        except (RuntimeError, AssertionError) as error:
            said = " ".join([str(error), *(str(warning.message) for warning in caught)])
    return fault_of(said, torch_version=torch.__version__, cuda=torch.version.cuda)


def in_use(
    *, free_bytes: int, total_bytes: int, busy_percent: int | None, processes: Sequence[str]
) -> str | None:
    """That somebody else works on the card, before anything was measured; None where nobody does.

    Args:
        free_bytes, total_bytes: of its memory.
        busy_percent: of its time, as nvidia-smi says; None where that does not run.
        processes: lines of nvidia-smi, a process each.
    """
    signs = []
    if processes:
        signs.append(f"by process {', '.join(processes)}")
    if free_bytes < FREE_SHARE * total_bytes:
        signs.append(f"{(total_bytes - free_bytes) / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB are taken")
    if busy_percent is not None and busy_percent > BUSY_PERCENT:
        signs.append(f"it computes {busy_percent} % of the time")
    if not signs:
        return None
    return (
        f"The GPU is in use: {'; '.join(signs)}; stop what runs there, or give --in-use and trust no figure."
    )


def nvidia_smi(query: str) -> list[str]:
    """Lines of nvidia-smi's answer; none where it does not run."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"],
            capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
