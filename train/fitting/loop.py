"""The training process of Section 3.3: batch, student, masks, regeneration, loss, step.

No image is augmented, so that the frozen teacher's features are computed once, before the loop (`features`).
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from train.config import FitConfig
from train.errors import TrainingError
from train.fitting.batches import Batch, GoodImages, load_batches
from train.fitting.cpu.allocator import keep_freed_memory
from train.fitting.monitor import Monitor
from train.fitting.preparation import autocast_dtype, fast_training, initial_state, set_training_mode
from train.fitting.resume import ResumeFile, TrainingState
from train.method.distances import distillation_loss, mask_features
from train.method.student import Student
from train.support.progress import progress_bar

RECENT_LOSSES = 10


def train_student(
    student: Student,
    good: GoodImages,
    *,
    held_out: GoodImages,
    config: FitConfig,
    run_dir: Path,
    resume: ResumeFile,
    device: torch.device,
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

    Returns:
        The state that the run ended in.

    Raises:
        TrainingError: the loss is not finite; the state before that step stays in the resume file.
    """
    keep_freed_memory()
    n_steps = config.total_steps(len(good))
    state = initial_state(student, config=config, n_steps=n_steps, device=device)
    resume.restore(state)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    steps = range(state.step, n_steps)
    batches = load_batches(
        good, batch_size=config.batch_size, seed=config.seed, steps=steps, device=device,
        drop_last=config.drop_last,
    )  # fmt: skip
    with (
        fast_training(student, config=config, device=device),
        progress_bar("Training", n_steps) as bar,
        closing(
            Monitor(run_dir, held_out=held_out, config=config, first_step=state.step, bar=bar)
        ) as monitor,
    ):
        for batch in batches:
            started = time.perf_counter()
            loss = masked_regeneration_loss(student, batch, state.mask_generator, config=config)
            if not torch.isfinite(loss):
                resume.save(state)
                raise _loss_error(loss, batch, state, good)
            take_step(state, loss)
            stop = monitor.after_step(state, student)
            state.seconds += time.perf_counter() - started
            resume.save_when_due(state)
            if stop:
                break
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
    return distillation_loss(
        in_float32, student.centered(batch.teacher_features), scale=config.distance_scale
    )


def take_step(state: TrainingState, loss: Tensor) -> None:
    """One step of Adam and of its schedule."""
    state.optimizer.zero_grad()
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.step += 1
    state.recent_losses = [*state.recent_losses, loss.item()][-RECENT_LOSSES:]


def _loss_error(loss: Tensor, batch: Batch, state: TrainingState, good: GoodImages) -> TrainingError:
    file_names = ", ".join(good.file_names[index] for index in batch.indices)
    return TrainingError(
        f"The loss is {loss.item()} at step {state.step}, on the batch {file_names}; the weights before that step are "
        "in resume.pt; look at these images, or train with a lower --learning-rate."
    )
