"""The machine's name, for figures that depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from train.support.cores import usable_cores


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the cores that this process may use and torch's threads."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor() or platform.machine())
    cores = usable_cores()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
