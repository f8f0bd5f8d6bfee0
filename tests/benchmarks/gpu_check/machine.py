"""The card, its driver, whether it is free, and what its matrix units do."""

from __future__ import annotations

import os
import platform

import torch

from tests.benchmarks.gpu_check.faults import cuda_fault, in_use, nvidia_smi
from tests.benchmarks.gpu_check.work import Asked, Results, rate

MATRIX_SIDE = 8192


def measure(asked: Asked, results: Results) -> None:
    """Name the machine; put `fault` where its GPU cannot be used, `in_use` where somebody else uses it."""
    results.put(
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cores=len(os.sched_getaffinity(0)),
    )
    if asked.device == "cuda":
        # Before this process is one of those that use the card.
        processes, busy = nvidia_smi("compute-apps=pid,used_memory"), nvidia_smi("gpu=utilization.gpu")
        fault = cuda_fault()
        if fault is not None:
            results.put(fault=fault, unusable=True)
            return
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        results.put(
            card=torch.cuda.get_device_name(),
            gpus=torch.cuda.device_count(),
            memory_gib=round(total_bytes / 2**30, 1),
            driver=next(iter(nvidia_smi("gpu=driver_version")), "unknown"),
            in_use=in_use(
                free_bytes=free_bytes,
                total_bytes=total_bytes,
                busy_percent=int(busy[0]) if busy and busy[0].isdecimal() else None,
                processes=processes,
            ),
        )
    else:
        results.put(card="cpu", gpus=0)
    results.put(matrix_tflops=matrix_tflops(asked))


def matrix_tflops(asked: Asked) -> float:
    """TFLOP/s of a large product of bf16 matrices of random values: what can be reached of the data sheet's peak."""
    side, device = (128 if asked.tiny else MATRIX_SIDE), asked.torch_device
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    products = rate(lambda: one @ other, device=device, seconds=0.05 if asked.tiny else 1.0)
    return products * 2 * side**3 / 1e12
