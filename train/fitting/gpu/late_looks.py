"""Steps whose losses are looked at together, later: a look has to wait for the GPU, which then waits for the next step.

Until the look nobody knows whether a loss was a number. So the state before the first of these steps is kept.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.fitting.finite import (
    BadStepError,
    changing_buffers,
    gradient_norm,
    require_finite,
    require_loss_scale,
)
from train.fitting.losses import RECENT_LOSSES
from train.fitting.resume import TrainingState

STEPS_BETWEEN_LOOKS = 20


def steps_between_looks(device: torch.device) -> int:
    """How many steps are taken before their losses are looked at; on a CPU each is, before it changes a weight."""
    return STEPS_BETWEEN_LOOKS if device.type == "cuda" else 1


@dataclass(frozen=True)
class SeenStep:
    """A step that was good: its number, from 0, its loss, and the learning rate after it."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class _UnseenStep:
    step: int
    indices: NDArray[np.intp]
    loss: Tensor
    norm: Tensor | None
    learning_rate: float


class LateLooks:
    """Takes steps without looking at their losses, and looks at all of them when asked to.

    Args:
        state: changed by each step.
        every: steps between looks.
    """

    def __init__(self, state: TrainingState, every: int) -> None:
        self.state = state
        self.every = every
        self._before = BeforeSteps(state)
        self._unseen: list[_UnseenStep] = []

    @property
    def due(self) -> bool:
        """Whether as many steps are unseen as may be."""
        return len(self._unseen) >= self.every

    def keep(self) -> None:
        """Remember the state, if it is known to be good: before the first step since a look."""
        if not self._unseen:
            self._before.keep()

    def take(self, loss: Tensor, indices: NDArray[np.intp]) -> None:
        """One step of Adam and of its schedule, without waiting for the device."""
        state = self.state
        state.optimizer.zero_grad()
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        norm = None if state.scaler.is_enabled() else gradient_norm(state)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.scheduler.step()
        learning_rate = float(state.scheduler.get_last_lr()[0])
        self._unseen.append(_UnseenStep(state.step, indices, loss.detach(), norm, learning_rate))
        state.step += 1

    def look(self) -> list[SeenStep]:
        """Wait for the steps taken since the last look.

        Raises:
            BadStepError: the first whose loss or gradient is not finite. Nothing of them may be kept, see `undo`.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return []
        measured = [step.loss for step in unseen] + [step.norm for step in unseen if step.norm is not None]
        values = torch.stack(measured).tolist()  # one wait for the device
        losses, norms = values[: len(unseen)], values[len(unseen) :]
        for number, step in enumerate(unseen):
            try:
                require_finite(losses[number], norms[number] if norms else None)
            except BadStepError as fault:
                fault.step, fault.indices = step.step, step.indices
                raise
        require_loss_scale(self.state)
        self.state.recent_losses = [*self.state.recent_losses, *losses][-RECENT_LOSSES:]
        return [SeenStep(s.step, loss, s.learning_rate) for s, loss in zip(unseen, losses, strict=True)]

    def undo(self) -> None:
        """Go back to the state before the steps that were not seen, or turned out bad."""
        self._unseen = []
        self._before.restore()


class BeforeSteps:
    """All that steps change: weights and statistics, Adam's moments, the schedule, the loss scale and the masks.

    Tensors are copied on their device.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._tensors: list[Tensor] = []
        self._rest: dict[str, Any] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them."""
        state, tensors = self._state, self._changing()
        if len(self._tensors) == len(tensors):
            _copy_all(tensors, to=self._tensors)
        else:  # at first, and once Adam has its moments, which it makes in its first step
            self._tensors = [tensor.clone() for tensor in tensors]
        self._rest = {
            "scheduler": copy.deepcopy(state.scheduler.state_dict()),
            "scaler": state.scaler.state_dict(),
            "masks": state.mask_generator.get_state(),
            "rates": [group["lr"] for group in state.optimizer.param_groups],
            "step": state.step,
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to what was kept."""
        state = self._state
        if len(self._changing()) > len(self._tensors):
            state.optimizer.state.clear()
        _copy_all(self._tensors, to=self._changing())
        state.scheduler.load_state_dict(self._rest["scheduler"])
        state.scaler.load_state_dict(self._rest["scaler"])
        state.mask_generator.set_state(self._rest["masks"])
        for group, rate in zip(state.optimizer.param_groups, self._rest["rates"], strict=True):
            group["lr"] = rate
        state.step = self._rest["step"]

    def _changing(self) -> list[Tensor]:
        state = self._state
        moments = [
            value
            for of_parameter in state.optimizer.state.values()
            for value in of_parameter.values()
            if isinstance(value, Tensor)
        ]
        return [
            tensor.detach()
            for tensor in (*state.student.parameters(), *changing_buffers(state.student), *moments)
        ]


def _copy_all(tensors: list[Tensor], *, to: list[Tensor]) -> None:
    """Copy many tensors at once, the whole numbers by themselves: mixed, torch would copy one after the other."""
    for whole in (False, True):
        pairs = [pair for pair in zip(to, tensors, strict=True) if pair[0].is_floating_point() != whole]
        if pairs:
            targets, sources = map(list, zip(*pairs, strict=True))
            torch._foreach_copy_(targets, sources)
