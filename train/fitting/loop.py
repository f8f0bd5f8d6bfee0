"""The training process of Section 3.3: batch, student, masks, regeneration, loss, step.

No image is augmented, so that the frozen teacher's features are computed once, before the loop (`features`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from train.config import FitConfig
from train.errors import StorageError, TrainingError
from train.fitting.batches import Batch, GoodImages, load_batches
from train.fitting.cpu.allocator import keep_freed_memory
from train.fitting.finite import BadStepError, BeforeStep, require_finite_step
from train.fitting.interruption import deferred_signals
from train.fitting.losses import RECENT_LOSSES
from train.fitting.monitor import Monitor
from train.fitting.preparation import autocast_dtype, fast_training, initial_state, set_training_mode
from train.fitting.resume import ResumeFile, TrainingState
from train.method.distances import mask_features
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
    state = initial_state(student, config=config, n_steps=n_steps, device=device, started=started)
    resume.restore(state)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    with (
        deferred_signals() as interruption,
        fast_training(student, config=config, device=device),
        progress_bar("Training", n_steps) as bar,
        Monitor(run_dir, held_out=held_out, config=config, first_step=state.step, bar=bar) as monitor,
    ):
        before = BeforeStep(state)
        steps = range(state.step, state.step if monitor.is_on_plateau(state) else n_steps)
        for batch in load_batches(good, config=config, steps=steps, device=device):
            before.keep()
            try:
                loss = masked_regeneration_loss(student, batch, state.mask_generator, config=config)
                take_step(state, loss)
            except BadStepError as fault:
                before.restore()
                raise _step_error(fault, batch, state, good, resume) from fault
            monitor.after_step(state, student)
            if interruption.asked or monitor.is_on_plateau(state):
                break
            resume.save_when_due(state)
        resume.save(state)
        interruption.tell_saved(state.step, n_steps, resume.path)
    student.eval()
    return state


def masked_regeneration_loss(
    student: Student, batch: Batch, mask_generator: torch.Generator, *, config: FitConfig
) -> Tensor:
    """Mask the student's features, regenerate them, and compare with the teacher's (Algorithm 1, Eq. 5)."""
    dtype = autocast_dtype(config.mixed_precision, batch.image.device)
    with torch.autocast(batch.image.device.type, dtype=dtype, enabled=dtype is not None):
        student_features = student.backbone(batch.image)
        masked = mask_features(
            student_features,
            mask_ratio=config.mask_ratio,
            generator=mask_generator,
            stages=config.generation_stages,
        )
        regenerated = student.regenerate(masked)
    # Norms and sums over channels lose too much in half precision.
    in_float32 = [feature.float() for feature in regenerated]
    return student.loss(in_float32, batch.teacher_features, scale=config.distance_scale)


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


def _step_error(
    fault: BadStepError, batch: Batch, state: TrainingState, good: GoodImages, resume: ResumeFile
) -> TrainingError:
    """What the user is told of a step that could not be taken; the state before it is saved where it is sound."""
    try:
        resume.save(state)
        kept = f"the state before that step is in {resume.path}"
    except TrainingError:  # an earlier step has spoilt the weights
        kept = resume.kept
    except StorageError as error:
        kept = f"the state before that step could not be saved: {error.message.rstrip('.')}"
    file_names = ", ".join(good.file_names[index] for index in batch.indices)
    half = " or in full precision (--mixed-precision off)" if state.scaler.is_enabled() else ""
    return TrainingError(
        f"{fault} at step {state.step}, on the batch {file_names}; {kept}; look at these images, or train with a lower "
        f"--learning-rate{half}."
    )
