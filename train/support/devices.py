"""Devices, the precision of a GPU, what a run needs of its machine, and the hardware's name for reports."""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.errors import ConfigError
from train.support.cores import usable_cores
from train.support.progress import console

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

    A GPU computes in full float32 from then on: every number that is kept is one of float32.

    Raises:
        ConfigError: it cannot be used here.
    """
    import torch

    if name == "auto":
        if not _finds_gpu():
            _tell_unused_gpu()
            return torch.device("cpu")
        device: torch.device | None = torch.device("cuda")
    else:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.index and device.type == "cpu"):
        raise _unusable(name, "expected cpu, cuda, cuda:<number> or auto")
    return device if device.type == "cpu" else _ready_gpu(name, device)


def tf32_is_allowed() -> bool:
    """Whether a GPU may round the factors of float32 products to 10 bits; unless told, PyTorch's convolutions do."""
    import torch

    with _old_names():
        return torch.backends.cudnn.allow_tf32


def allow_tf32(allowed: bool) -> None:
    """Set `tf32_is_allowed`."""
    import torch

    with _old_names():
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """`allow_tf32` for the length of a block."""
    before = tf32_is_allowed()
    allow_tf32(allowed)
    try:
        yield
    finally:
        allow_tf32(before)


@contextmanager
def _old_names() -> Iterator[None]:
    """Some versions of torch advise other names for TF32's switches; its compiler does not take those everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _ready_gpu(name: str, device: torch.device) -> torch.device:
    """The GPU with its number, after it has shown that it works, in full float32."""
    import torch

    _require_gpu(name, device.index or 0)
    _require_answer(name, device)
    allow_tf32(False)
    return torch.empty(0, device=device).device


def _finds_gpu() -> bool:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an old driver, which we tell ourselves
        return torch.cuda.is_available()


def _old_driver() -> str | None:
    """A phrase, where there is a driver and it is too old for this torch."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the latter of a torch for CPUs
        if "too old" in str(error):
            found = re.search(r"found version (\d+)", str(error))
            version = int(found[1]) if found else 0
            has = f", it has CUDA {version // 1000}.{version % 1000 // 10}" if version else ""
            return (
                f"NVIDIA's driver is too old for torch {torch.__version__}, which needs one for CUDA "
                f"{torch.version.cuda}{has}; update the driver, or install a torch that is built for an older CUDA"
            )
    return None


def _tell_unused_gpu() -> None:
    """Say why `auto` takes the CPU on a machine that has a GPU."""
    reason = _old_driver()
    if reason is not None:
        console.print(f"The GPU is not used: {reason}.", style="yellow", markup=False)


def _require_gpu(name: str, index: int) -> None:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        raise _unusable(
            name, f"torch {torch.__version__} is built for CPUs alone; install one that is built for your GPU"
        )
    n_gpus = torch.cuda.device_count() if _finds_gpu() else 0
    if not n_gpus:
        reason = _old_driver() or "torch finds no GPU (look at nvidia-smi and CUDA_VISIBLE_DEVICES)"
        raise _unusable(name, reason)
    if index >= n_gpus:
        there = "cuda:0" if n_gpus == 1 else f"cuda:0 to cuda:{n_gpus - 1}"
        raise _unusable(name, f"this machine has {there}")


def _require_answer(name: str, device: torch.device) -> None:
    """Compute one number there, so that a GPU that takes no work is told now.

    Raises:
        ConfigError: it does not.
    """
    import torch

    try:
        torch.zeros(1, device=device).add_(1).cpu()
    except RuntimeError as error:  # torch's own errors of CUDA among them
        raise _unusable(name, _why_no_answer(str(error))) from None


def _why_no_answer(error: str) -> str:
    import torch

    lowered = error.lower()
    if "busy or unavailable" in lowered:
        return "the GPU is in use by another process, which has it alone (look at nvidia-smi)"
    if "out of memory" in lowered:
        return "the GPU's memory is in use by other processes (look at nvidia-smi)"
    if "no kernel image" in lowered:
        return f"torch {torch.__version__} is not built for this model of GPU; install one that is"
    return f"the GPU takes no work ({error.strip().splitlines()[0]})"


def _unusable(name: str, reason: str) -> ConfigError:
    otherwise = "" if name == "auto" else ", or leave --device out, which takes a GPU where there is one"
    return ConfigError(f"--device {name} cannot be used here: {reason}; use --device cpu{otherwise}.")


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
        others = ("can't allocate memory", "CUDA error: out of memory")
        if not on_gpu_or_in_numpy and not any(said in str(error) for said in others):
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
