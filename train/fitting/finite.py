"""A step whose loss or gradient is no number changes nothing."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.fitting.resume import TrainingState

# Adam squares each gradient, in float32.
LARGEST_GRADIENT = math.sqrt(torch.finfo(torch.float32).max)
SMALLEST_LOSS_SCALE = 2.0**-10  # of float16, which begins at 65,536 and halves it at each overflow


class BadStepError(Exception):
    """A loss or a gradient that nothing can be learned from.

    Attributes:
        step: the step's number; None where it is the one that is being taken.
        indices: of its images, likewise.
    """

    step: int | None = None
    indices: NDArray[np.intp] | None = None


def changing_buffers(network: nn.Module) -> list[Tensor]:
    """Buffers of the layers in training mode; those of the others do not change while it is trained."""
    return [
        buffer for module in network.modules() if module.training for buffer in module.buffers(recurse=False)
    ]


class BeforeStep:
    """What a forward pass changes although the step may not be taken: BatchNorm's running statistics and the masks.

    Args:
        state: of a student whose layers are in the modes they are trained in.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._buffers = changing_buffers(state.student)
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._masks = state.mask_generator.get_state()

    def keep(self) -> None:
        """Remember them."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        self._masks = self._state.mask_generator.get_state()

    def restore(self) -> None:
        """Go back to what was kept."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)
        self._state.mask_generator.set_state(self._masks)


def require_finite_step(state: TrainingState, loss: Tensor) -> None:
    """Make sure, before Adam's step, that the loss is finite, and so are the squares of the gradients.

    Gradients in float16 are left to its loss scale, which skips a step that overflows and is halved.

    Raises:
        BadStepError: they are not, or the loss scale has been halved for nothing.
    """
    measured = [loss.detach()]
    if not state.scaler.is_enabled():
        measured.append(gradient_norm(state))
    loss_value, *norms = torch.stack(measured).tolist()  # one wait for the device
    require_finite(loss_value, norms[0] if norms else None)
    require_loss_scale(state)


def gradient_norm(state: TrainingState) -> Tensor:
    """Of all weights together, on their device."""
    gradients = [parameter.grad for parameter in state.student.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def require_finite(loss: float, norm: float | None) -> None:
    """Make sure that a step's loss is finite, and so is the square of its gradient's norm, if that is known.

    Raises:
        BadStepError: they are not.
    """
    if not math.isfinite(loss):
        raise BadStepError(f"The loss is {loss}")
    if norm is not None and not norm < LARGEST_GRADIENT:
        raise BadStepError(f"The norm of the gradient is {norm:.3g}")


def require_loss_scale(state: TrainingState) -> None:
    """Make sure that float16's loss scale has not been halved for nothing.

    Raises:
        BadStepError: it has.
    """
    if state.scaler.is_enabled() and state.scaler.get_scale() < SMALLEST_LOSS_SCALE:
        raise BadStepError("The gradient overflows float16, however small its loss scale,")
