"""Where networks compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | torch.device) -> torch.device:
    """The torch device of that name, or of the machine for `auto`.

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
