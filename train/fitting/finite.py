"""A step whose loss or gradient is no number changes nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from train.fitting.resume import TrainingState

# Adam squares each gradient, in float32.
LARGEST_GRADIENT = math.sqrt(torch.finfo(torch.float32).max)
SMALLEST_LOSS_SCALE = 2.0**-10  # of float16, which begins at 65,536 and halves it at each overflow


class BadStepError(Exception):
    """A loss or a gradient that nothing can be learned from."""


class BeforeStep:
    """What a forward pass changes although the step may not be taken: BatchNorm's running statistics and the masks.

    Args:
        state: of a student whose layers are in the modes they are trained in.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._buffers = [
            buffer
            for module in state.student.modules()
            if module.training
            for buffer in module.buffers(recurse=False)
        ]
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
        gradients = [parameter.grad for parameter in state.student.parameters() if parameter.grad is not None]
        measured.append(torch.nn.utils.get_total_norm(gradients))
    loss_value, *norms = torch.stack(measured).tolist()  # one wait for the device
    if not math.isfinite(loss_value):
        raise BadStepError(f"The loss is {loss_value}")
    if norms and not norms[0] < LARGEST_GRADIENT:
        raise BadStepError(f"The norm of the gradient is {norms[0]:.3g}")
    if state.scaler.is_enabled() and state.scaler.get_scale() < SMALLEST_LOSS_SCALE:
        raise BadStepError("The gradient overflows float16, however small its loss scale,")
