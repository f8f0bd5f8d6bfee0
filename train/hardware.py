"""The machine's name, for figures that depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with its cores and torch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor() or platform.machine())
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
