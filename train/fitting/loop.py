"""The training process of Section 3.3: batch, student, masks, regeneration, loss, step.

No image is augmented, so that the frozen teacher's features are computed once, before the loop (`features`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.config import FitConfig
from train.errors import StorageError, TrainingError
from train.fitting.cpu.allocator import keep_freed_memory
from train.fitting.features import Batch, GoodImages, load_batches
from train.fitting.finite import BadStepError, BeforeStep, require_finite_step
from train.fitting.gpu.late_looks import LateLooks, SeenStep, steps_between_looks
from train.fitting.interruption import deferred_signals
from train.fitting.losses import RECENT_LOSSES
from train.fitting.masked_loss import ComputeLoss, loss_under_masks
from train.fitting.monitor import Monitor
from train.fitting.preparation import autocast_dtype, fast_training, initial_state, set_training_mode
from train.fitting.resume import ResumeFile, TrainingState
from train.method.distances import draw_masks
from train.method.student import Student
from train.support.progress import progress_bar


def train_student(
    student: Student,
    good: GoodImages,
    *,
    held_out: GoodImages,
    config: FitConfig,
    run_dir: Path,
    resume: ResumeFile,
    device: torch.device,
    started: float,
) -> TrainingState:
    """Teach the student to regenerate the teacher's features (Section 3.3, Algorithm 1).

    Args:
        student: changed in place; left in evaluation mode.
        good: training images and the teacher's features of them.
        held_out: good images that are validated on and never trained on.
        config: schedule, masking and loss.
        run_dir: takes losses.csv and TensorBoard's events.
        resume: where an unfinished run is saved, and continued from.
        device: where the student is.
        started: when the run did, on the clock of `time.perf_counter`; its seconds count from there.

    Returns:
        The state that the run ended in, which is in the resume file too, as after Ctrl-C.

    Raises:
        TrainingError: loss, gradient or weights are not finite; the sentence says which state is in the resume file.
    """
    keep_freed_memory()
    n_steps = config.total_steps(len(good))
    state = _begun(student, resume, config=config, n_steps=n_steps, device=device, started=started)
    with (
        deferred_signals() as interruption,
        fast_training(student, config=config, device=device, n_images=len(good)) as compute,
        progress_bar("Training", n_steps) as bar,
        Monitor(run_dir, held_out=held_out, config=config, first_step=state.step, bar=bar) as monitor,
    ):
        last = state.step if monitor.is_on_plateau(state) else n_steps
        steps = steps_of(state, device)
        for batch in load_batches(good, config=config, steps=range(state.step, last), device=device):
            steps.keep()
            try:
                masks = state.mask_generator
                loss = masked_regeneration_loss(student, batch, masks, config=config, compute=compute)
                steps.take(loss, batch.indices)
                if not (steps.due or interruption.asked or monitor.validates(state) or state.step == last):
                    continue
                monitor.log_all(steps.look()[:-1])
            except BadStepError as fault:
                steps.undo()
                raise _step_error(fault, batch, state, good, resume) from fault
            monitor.after_step(state, student)
            if interruption.asked or monitor.is_on_plateau(state):
                break
            resume.save_when_due(state)
        resume.save(state)
        interruption.tell_saved(state.step, n_steps, resume.path)
    student.eval()
    return state


def _begun(
    student: Student,
    resume: ResumeFile,
    *,
    config: FitConfig,
    n_steps: int,
    device: torch.device,
    started: float,
) -> TrainingState:
    """The state that the run starts or goes on from, of a student in the modes it is trained in."""
    state = initial_state(student, config=config, n_steps=n_steps, device=device, started=started)
    resume.restore(state)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    return state


def masked_regeneration_loss(
    student: Student,
    batch: Batch,
    mask_generator: torch.Generator,
    *,
    config: FitConfig,
    compute: ComputeLoss = loss_under_masks,
) -> Tensor:
    """Mask the student's features, regenerate them, and compare with the teacher's (Algorithm 1, Eq. 5).

    `compute` is what `train.fitting.preparation.fast_training` gives.
    """
    masks = draw_masks(
        [feature.shape[-2:] for feature in batch.teacher_features],
        mask_ratio=config.mask_ratio,
        generator=mask_generator,
        stages=config.generation_stages,
    )
    dtype = autocast_dtype(config, batch.image.device)
    return compute(student, batch.image, batch.teacher_features, masks, dtype, config.distance_scale)


def take_step(state: TrainingState, loss: Tensor) -> None:
    """One step of Adam and of its schedule.

    Raises:
        BadStepError: loss or gradient are not finite; no weight and no moment of Adam has changed.
    """
    state.optimizer.zero_grad()
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    require_finite_step(state, loss)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.step += 1
    state.recent_losses = [*state.recent_losses, loss.item()][-RECENT_LOSSES:]


def steps_of(state: TrainingState, device: torch.device) -> CheckedSteps | LateLooks:
    """What takes the steps: looked at each on a CPU, many at a time on a GPU."""
    every = steps_between_looks(device)
    return LateLooks(state, every) if every > 1 else CheckedSteps(state)


class CheckedSteps:
    """Takes steps each of which is looked at before it changes a weight, as `LateLooks` does for many at a time."""

    due = True

    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self._before = BeforeStep(state)

    def keep(self) -> None:
        """Remember what the step's forward pass changes."""
        self._before.keep()

    def take(self, loss: Tensor, indices: NDArray[np.intp]) -> None:
        """See `take_step`."""
        take_step(self.state, loss)

    def look(self) -> list[SeenStep]:
        """The step that was just taken."""
        state = self.state
        rate = float(state.scheduler.get_last_lr()[0])
        return [SeenStep(state.step - 1, state.recent_losses[-1], rate)]

    def undo(self) -> None:
        """Go back to the state before the step."""
        self._before.restore()


def _step_error(
    fault: BadStepError, batch: Batch, state: TrainingState, good: GoodImages, resume: ResumeFile
) -> TrainingError:
    """What the user is told of a step that could not be taken; the state before it is saved where it is sound."""
    bad_step = state.step if fault.step is None else fault.step
    n_before = bad_step - state.step
    which = "the state before that step" if not n_before else f"the state {n_before} steps before that one"
    try:
        resume.save(state)
        kept = f"{which} is in {resume.path}"
    except TrainingError:  # an earlier step has spoilt the weights
        kept = resume.kept
    except StorageError as error:
        kept = f"{which} could not be saved: {error.message.rstrip('.')}"
    indices = batch.indices if fault.indices is None else fault.indices
    file_names = ", ".join(good.file_names[index] for index in indices)
    half = " or in full precision (--mixed-precision off)" if state.scaler.is_enabled() else ""
    return TrainingError(
        f"{fault} at step {bad_step}, on the batch {file_names}; {kept}; look at these images, or train with a lower "
        f"--learning-rate{half}."
    )
