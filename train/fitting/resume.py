"""The saved state of an unfinished run: stopped and started again, it ends with the same weights."""

from __future__ import annotations

import copy
import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.errors import TrainingError
from train.fitting.unfinished import (
    DAMAGE,
    RunInputs,
    UnfinishedRun,
    find_all_unfinished,
    find_unfinished,
    move_files,
    read_saved,
    unfinished_run,
)
from train.support.arrays import names_of_not_finite
from train.support.files import replacing, storage_errors
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
        seconds: all that the run has taken so far, interruptions left out.
        counted_until: up to where on this process's clock `seconds` is counted.
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
    counted_until: float = field(default_factory=time.perf_counter)

    def count_seconds(self) -> None:
        """Add the time since the last call, whatever was done in it."""
        now = time.perf_counter()
        self.seconds += now - self.counted_until
        self.counted_until = now

    def state_dict(self) -> dict[str, Any]:
        """Everything as tensors and numbers."""
        return {
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "mask_generator": self.mask_generator.get_state(),
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave, all of it or none.

        Raises:
            Exception: of many types; it is another network's state, or parts of it are missing.
        """
        before = copy.deepcopy(self.state_dict())
        try:
            self._take(state)
        except Exception:  # torch tells a misfit in half a dozen types, after it has taken a part
            self._take(before)
            raise

    def _take(self, state: dict[str, Any]) -> None:
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
        path: the file; the states of other runs that it held are put beside it.
        run: what the run is made of; it goes on from a state that was made of the same.
        interval_s: seconds between saves.
    """

    def __init__(self, path: Path, *, run: RunInputs, interval_s: float) -> None:
        self.path = path
        self.run = run
        self.interval_s = interval_s
        self.saved_step: int | None = None  # of the state in the file, once it is this run's
        self._next_save = time.monotonic() + interval_s

    @property
    def kept(self) -> str:
        """What a run that ends here leaves, for messages."""
        if self.saved_step is None:
            return "nothing of this run had been saved"
        return f"the state after step {self.saved_step}, the last that was saved, is in {self.path}"

    def restore(self, state: TrainingState) -> None:
        """Load the state if the file has one of this run.

        One of another run is put into a folder beside it, and what differs is told. Going back to that run finds it
        there.

        Raises:
            StorageError: the file cannot be read or moved.
        """
        if self.path.exists() and find_unfinished(self.path) is None:
            console.print(f"{self.path} is damaged: training starts from the beginning.", style="yellow")
            return
        runs = find_all_unfinished(self.path)
        own = next((run for run in runs if not run.differences(self.run)), None)
        if own is None or own.path != self.path:
            for other in runs:
                if other.path == self.path:
                    self._put_beside(other)
        if own is None:
            return
        if own.path != self.path:
            move_files(own.path.parent, self.path.parent)
            own.path.parent.rmdir()
        self._load(state)

    def _put_beside(self, other: UnfinishedRun) -> None:
        move_files(self.path.parent, other.folder_beside)
        console.print(
            f"{self.path} is of another run ({'; '.join(other.differences(self.run))}), which is kept: its files with "
            f"{other.step} steps are now in {other.folder_beside}. Asked for as before, that run goes on from there.",
            style="yellow",
            markup=False,
        )

    def _load(self, state: TrainingState) -> None:
        try:
            saved = read_saved(self.path)
            wrong = names_of_not_finite(arrays_of(saved["state"]))
            if wrong:
                raise ValueError(f"{len(wrong)} of its tensors are not finite, {wrong[0]} among them")
            state.load_state_dict(saved["state"])
        except (*DAMAGE, AttributeError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            console.print(
                f"{self.path} cannot be used ({reason}): training starts from the beginning.",
                style="yellow",
                markup=False,
            )
            return
        self.saved_step = state.step
        changed = "" if unfinished_run(self.path, saved).inputs == self.run else " with the options of now"
        console.print(f"Going on after step {state.step}, from {self.path}{changed}.")

    def save_when_due(self, state: TrainingState) -> None:
        """Write the state if the interval has passed; a slow disk makes the interval longer."""
        started = time.monotonic()
        if started < self._next_save:
            return
        self.save(state)
        ended = time.monotonic()
        self._next_save = ended + max(self.interval_s, (ended - started) / SAVE_SHARE)

    def save(self, state: TrainingState) -> None:
        """Write the state, whole or not at all.

        Raises:
            TrainingError: a weight, a buffer or a moment of Adam is not finite; the file stays as it is.
            StorageError: the file cannot be written.
        """
        state.count_seconds()
        content = state.state_dict()
        arrays = arrays_of(content)
        wrong = names_of_not_finite(arrays)
        if wrong:
            raise TrainingError(
                f"{len(wrong)} of {len(arrays)} tensors of student and Adam are not finite after step {state.step}, "
                f"{wrong[0]} among them; {self.kept}; train again, with a lower --learning-rate."
            )
        buffer = io.BytesIO()
        torch.save({"run": self.run.model_dump(mode="json"), "state": content}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self.saved_step = state.step

    def remove(self) -> None:
        """Delete the file: the run is finished."""
        with storage_errors(self.path):
            self.path.unlink(missing_ok=True)


def arrays_of(state: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The student's tensors and Adam's moments in what `TrainingState.state_dict` gave, by name.

    Raises:
        KeyError, TypeError, AttributeError: it is damaged.
    """
    tensors: dict[str, Tensor] = {f"student.{name}": tensor for name, tensor in state["student"].items()}
    for number, moments in state["optimizer"]["state"].items():
        tensors |= {f"Adam.{name}.{number}": value for name, value in moments.items()}
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
