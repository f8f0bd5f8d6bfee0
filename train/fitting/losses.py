"""losses.csv: the losses of a training run, one row a step, written as it goes and read for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.checkpoint.provenance import Provenance
from train.support.files import storage_errors, write_text

LOSSES_FILE = "losses.csv"  # in a run's folder
EVENTS_FOLDER = "tensorboard"  # beside it, with the same losses
RECENT_LOSSES = 10  # whose mean is a run's final loss
HEADER = "step,train_loss,learning_rate,validation_loss\n"


@dataclass(frozen=True)
class Losses:
    """A run's losses over its steps, all [P].

    Attributes:
        step: from 0.
        train_loss: of the step's batch (Eq. 5).
        learning_rate: after the step.
        validation_loss: on held-out good images; NaN at steps without a validation.
    """

    step: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    validation_loss: NDArray[np.float64]

    def belong_to(self, history: Provenance) -> bool:
        """Whether they end where a checkpoint's history does; older ones do not say after how many steps."""
        same_end = abs(float(self.train_loss[-RECENT_LOSSES:].mean()) - history.final_loss) < 1e-5
        return same_end and history.steps in (None, len(self.step))


def begin_losses(path: Path, *, first_step: int) -> None:
    """Start the file; of a run that continues at `first_step`, keep the rows before.

    Steps after the last saved state were written before the interruption and will be written again.
    """
    earlier = (
        [row for row in _complete_rows(path) if int(row.split(",")[0]) < first_step] if first_step else []
    )
    write_text(path, "".join([HEADER, *earlier]))


def append_losses(
    path: Path, *, step: int, train_loss: float, learning_rate: float, validation_loss: float | None
) -> None:
    """Add a step's row; it is in the file when this returns, so that a killed run has it.

    Raises:
        StorageError: the disk is full, or the file cannot be written for another reason.
    """
    validation = "" if validation_loss is None else f"{validation_loss:.9g}"
    remedy = "make room and start the run again: it continues where it was last saved"
    with storage_errors(path, remedy=remedy), path.open("a", encoding="utf-8") as file:
        file.write(f"{step},{train_loss:.9g},{learning_rate:.9g},{validation}\n")


def read_losses(path: Path, history: Provenance | None = None) -> Losses | None:
    """The losses of a run; None where it has no such file, or no step in it yet.

    Args:
        path: the file.
        history: of a checkpoint beside it: then None, too, where the file is of another run, one begun since for
            example, whose losses are not those of the checkpoint.
    """
    rows = _complete_rows(path)
    if not rows:
        return None
    step, *columns = np.genfromtxt(rows, delimiter=",", ndmin=2).T
    losses = Losses(step.astype(np.int64), *columns)
    if history is not None and not losses.belong_to(history):
        return None
    return losses


def _complete_rows(path: Path) -> list[str]:
    """The rows below the header; a last one that was cut short by an interruption is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines[1:] if line.endswith("\n")]
