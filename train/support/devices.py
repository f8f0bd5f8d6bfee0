"""Devices, what a run needs of its machine, and the hardware's name for reports."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.errors import ConfigError
from train.support.cores import usable_cores

# Torch takes seconds to load, and commands that find their work up to date never need it.
if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """What a run needs besides images and a configuration.

    Attributes:
        device: where networks compute, see `choose_device`.
        weights_dir: the user's folder of pretrained weights, those of SAM among them; see
            `train.method.pretrained_weights.load_weights` and `train.calibration.sam.load_sam`.
        strict: a broken image stops the run; else it is skipped with a warning.
    """

    device: str = "auto"
    weights_dir: Path | None = None
    strict: bool = False

    @property
    def torch_device(self) -> torch.device:
        """The device itself; torch is loaded here and not before."""
        return choose_device(self.device)


def choose_device(name: str) -> torch.device:
    """The torch device of that name; for `auto` the GPU if there is one, else the CPU.

    Raises:
        ConfigError: it cannot be used here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.index and device.type == "cpu"):
        raise _unusable(name, "expected cpu, cuda, cuda:<number> or auto")
    if device.type == "cuda":
        _require_gpu(name, device.index or 0)
    return torch.empty(0, device=device).device


def _require_gpu(name: str, index: int) -> None:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        raise _unusable(
            name, f"torch {torch.__version__} is built for CPUs alone; install one that is built for your GPU"
        )
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n_gpus:
        raise _unusable(name, "torch finds no GPU (look at nvidia-smi and CUDA_VISIBLE_DEVICES)")
    if index >= n_gpus:
        there = "cuda:0" if n_gpus == 1 else f"cuda:0 to cuda:{n_gpus - 1}"
        raise _unusable(name, f"this machine has {there}")


def _unusable(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"--device {name} cannot be used here: {reason}; use --device cpu, or leave --device out, which takes a GPU "
        "where there is one."
    )


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Within it, a device whose memory is full is told in one sentence.

    Raises:
        ConfigError: in place of torch's own error; the sentence ends with `remedy`.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_gpu_or_in_numpy = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not on_gpu_or_in_numpy and "can't allocate memory" not in str(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ConfigError(f"The memory does not suffice ({reason}); {remedy}.") from None


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the cores that this process may use and torch's threads."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.processor() or platform.machine())
    return f"{model}, {usable_cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
