"""The saved state of an unfinished run: killed and started again, it ends with the same weights."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.support.files import replacing
from train.support.progress import console

SAVE_SHARE = 0.05  # of the training time that saving may take


@dataclass
class TrainingState:
    """All that changes from step to step.

    Attributes:
        student: its weights and BatchNorm statistics.
        optimizer: Adam's moments.
        scheduler: where in the schedule it is.
        scaler: the loss scale of float16; idle otherwise.
        mask_generator: draws the masks (Algorithm 1).
        step: steps done.
        recent_losses: of the last ten steps.
        best_validation: lowest validation loss so far.
        validations_since_best: how many validations ago that was.
        seconds: spent on steps so far.
    """

    student: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    mask_generator: torch.Generator
    step: int = 0
    recent_losses: list[float] = field(default_factory=list)
    best_validation: float = float("inf")
    validations_since_best: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything as tensors and numbers."""
        return {
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "mask_generator": self.mask_generator.get_state(),
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.mask_generator.set_state(state["mask_generator"])
        for name in _NUMBERS:
            setattr(self, name, state[name])


_STATEFUL = ("student", "optimizer", "scheduler", "scaler")
_NUMBERS = ("step", "recent_losses", "best_validation", "validations_since_best", "seconds")


class ResumeFile:
    """Saves a run's state to disk, no more often than every `interval_s` seconds.

    Args:
        path: the file.
        run: what the run is made of (configuration, images, device, library); a state of another run is ignored.
        interval_s: seconds between saves.
    """

    def __init__(self, path: Path, *, run: str, interval_s: float) -> None:
        self.path = path
        self.run = hashlib.sha256(run.encode()).hexdigest()
        self.interval_s = interval_s
        self._next_save = time.monotonic() + interval_s

    def restore(self, state: TrainingState) -> None:
        """Load the state if the file belongs to this run; a damaged file or another run's is ignored."""
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            if saved["run"] != self.run:
                return
            state.load_state_dict(saved["state"])
        except FileNotFoundError:
            return
        except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError):
            console.print(f"{self.path} is damaged: training starts from the beginning.", style="yellow")
            return
        console.print(f"Going on after step {state.step}, from {self.path}.")

    def save_when_due(self, state: TrainingState) -> None:
        """Write the state if the interval has passed; a slow disk makes the interval longer."""
        started = time.monotonic()
        if started < self._next_save:
            return
        self.save(state)
        ended = time.monotonic()
        self._next_save = ended + max(self.interval_s, (ended - started) / SAVE_SHARE)

    def save(self, state: TrainingState) -> None:
        """Write the state, whole or not at all."""
        buffer = io.BytesIO()
        torch.save({"run": self.run, "state": state.state_dict()}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def remove(self) -> None:
        """Delete the file: the run is finished."""
        self.path.unlink(missing_ok=True)
