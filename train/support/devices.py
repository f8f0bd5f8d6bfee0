"""Devices, what a run needs of its machine, and the hardware's name for reports."""

from __future__ import annotations

import platform
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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); use cpu."
        ) from None


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
