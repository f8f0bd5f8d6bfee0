"""The machine and the package versions that figures were measured with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = ("astmfr", "tritonclient", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Machine:
    """The machine that the client runs on.

    Attributes:
        processor: its name.
        cores: that this process may use.
        memory_gib: in all.
        gpu: names of its GPUs with commas between, or an empty string.
        load: average of the last minute before the run; where it is not near 0, other processes used the machine too.
        system: kernel and its release.
    """

    processor: str
    cores: int
    memory_gib: float
    gpu: str
    load: float
    system: str

    def __str__(self) -> str:
        gpu = f", {self.gpu}" if self.gpu else ", no GPU"
        return f"{self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB{gpu}"


def usable_cores() -> int:
    """Cores that this process may use, as `train.support.cores` counts them; the client imports no other stage."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        memory_gib=round(psutil.virtual_memory().total / (1 << 30), 1),
        gpu=_gpu(),
        load=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.release()}",
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `PACKAGES` that are installed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def is_here(url: str) -> bool:
    """Whether a server at host:port is on this machine."""
    host = url.rpartition(":")[0].strip("[]")
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(_is_own(address) for address in addresses)


def _is_own(address: str) -> bool:
    """An address is this machine's own if a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _processor() -> str:
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), model)
    return model


def _gpu() -> str:
    """The names that nvidia-smi lists; empty where there is no nvidia-smi, or it fails."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(done.stdout.splitlines())
