"""The training loop of Section 3.3: batch, student, masks, regeneration, loss, step."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from train.config import FitConfig
from train.errors import TrainingError
from train.fitting.batches import Batch, GoodImages, load_batches
from train.fitting.cpu.allocator import keep_freed_memory
from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.fitting.monitor import Monitor
from train.fitting.resume import ResumeFile, TrainingState
from train.method.student import GenerationBlock, Student, distillation_loss, mask_features
from train.support.progress import progress_bar

WARM_UP_STEPS = 20  # of the cosine schedule
RECENT_LOSSES = 10


@dataclass(frozen=True)
class TrainingOutcome:
    """How a run ended.

    Attributes:
        steps: optimiser steps done.
        final_loss: mean of the last ten steps.
        seconds: spent on them, those before an interruption included.
    """

    steps: int
    final_loss: float
    seconds: float


def train_student(
    student: Student,
    good: GoodImages,
    *,
    held_out: GoodImages,
    config: FitConfig,
    log_dir: Path,
    resume: ResumeFile,
    device: torch.device,
) -> TrainingOutcome:
    """Teach the student to regenerate the teacher's features (Section 3.3, Algorithm 1).

    Args:
        student: changed in place; left in evaluation mode.
        good: training images and the teacher's features of them.
        held_out: good images that are only looked at.
        config: schedule, masking and loss.
        log_dir: TensorBoard events.
        resume: where an unfinished run is kept and taken up again.
        device: where the student is.

    Raises:
        TrainingError: the loss is no number; the state before that step stays in the resume file.
    """
    keep_freed_memory()
    n_steps = config.total_steps(len(good))
    state = initial_state(student, config=config, n_steps=n_steps, device=device)
    resume.restore(state)
    set_training_mode(
        student, freeze_batchnorm=config.freeze_batchnorm, fast=has_fast_convolutions(config, device)
    )
    if config.compile:
        for module in (student.backbone, *student.generation_blocks):
            module.compile()
    batches = load_batches(
        good,
        batch_size=config.batch_size,
        seed=config.seed,
        steps=range(state.step, n_steps),
        device=device,
    )
    with (
        fast_backbone(student, config=config),
        progress_bar("Training", n_steps) as bar,
        Monitor(log_dir, held_out=held_out, config=config, first_step=state.step, bar=bar) as monitor,
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
    return TrainingOutcome(
        steps=state.step, final_loss=float(np.mean(state.recent_losses)), seconds=state.seconds
    )


def fast_backbone(student: Student, *, config: FitConfig) -> AbstractContextManager[int]:
    """The student's backbone without passes for its frozen BatchNorm; a compiler does that itself."""
    if config.freeze_batchnorm and not config.compile:
        return folded_batchnorm(student.backbone, image_size=config.image_size)
    return nullcontext(0)


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
    full = [feature.float() for feature in regenerated]
    return distillation_loss(full, student.centered(batch.teacher_features), scale=config.distance_scale)


def take_step(state: TrainingState, loss: Tensor) -> None:
    """One step of Adam and of its schedule."""
    state.optimizer.zero_grad()
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.step += 1
    state.recent_losses = [*state.recent_losses, loss.item()][-RECENT_LOSSES:]


def initial_state(
    student: Student, *, config: FitConfig, n_steps: int, device: torch.device
) -> TrainingState:
    """Adam, its schedule and the generator of masks, before the first step."""
    optimizer = torch.optim.Adam(
        student.parameters(), lr=config.learning_rate, betas=config.betas, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, n_steps=n_steps, schedule=config.schedule)
    )
    scales = autocast_dtype(config.mixed_precision, device) is torch.float16
    return TrainingState(
        student=student,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=scales),
        mask_generator=torch.Generator().manual_seed(config.seed),
    )


def autocast_dtype(mixed_precision: str, device: torch.device) -> torch.dtype | None:
    """What the student's layers compute in; None for float32 throughout.

    `auto` is bfloat16 on GPUs that have it (Ampere and later), float16 on older ones, off on a CPU.
    """
    if mixed_precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[mixed_precision]


def learning_rate_factor(step: int, *, n_steps: int, schedule: str) -> float:
    """Factor of the learning rate at a step: 1, or a short linear rise and a half cosine down to 0."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def has_fast_convolutions(config: FitConfig, device: torch.device) -> bool:
    """Whether the generation blocks train by `train.fitting.cpu.winograd`: on a CPU, in float32, not compiled."""
    half = autocast_dtype(config.mixed_precision, device) is not None
    return device.type == "cpu" and not half and not config.compile


def set_training_mode(student: Student, *, freeze_batchnorm: bool, fast: bool) -> None:
    """Training mode.

    Args:
        student: changed in place.
        freeze_batchnorm: its layers keep their pretrained statistics.
        fast: see `has_fast_convolutions`.
    """
    student.train()
    for block in student.generation_blocks:
        if isinstance(block, GenerationBlock):
            block.fast_training = fast
    if freeze_batchnorm:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _loss_error(loss: Tensor, batch: Batch, state: TrainingState, good: GoodImages) -> TrainingError:
    names = ", ".join(good.names[index] for index in batch.indices)
    return TrainingError(
        f"The loss is {loss.item()} at step {state.step}, on the batch {names}; the weights before that step are kept "
        "in resume.pt; look at these images, or train with a lower --learning-rate."
    )
