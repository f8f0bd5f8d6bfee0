"""What a run needs before its first step: Adam and its schedule, the precision, and a student that trains fast."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn

from train.config import PRESETS, FitConfig
from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.fitting.cpu.winograd import winograd_convolutions
from train.fitting.features import GoodImages
from train.fitting.masked_loss import ComputeLoss, compiled_loss, loss_under_masks
from train.fitting.resume import TrainingState
from train.method.student import Student
from train.support.devices import memory_errors, tf32

WARM_UP_STEPS = 20  # of the cosine schedule


def set_teacher_statistics(student: Student, train: GoodImages) -> None:
    """Give a student what the teacher sees in the images to train on, on average, and its spread where that counts."""
    features = train.teacher_features
    stds = features.stds() if student.residuals is not None else ()  # a pass over all features
    student.set_teacher_statistics(features.means(), stds)


def full_memory_of_gpu(config: FitConfig, device: torch.device) -> AbstractContextManager[None]:
    """Within it, a GPU whose memory is full is told with a batch to try."""
    if device.type == "cpu":
        return nullcontext()
    half = max(1, config.batch_size // 2)
    return memory_errors(f"try --batch-size {half}, a smaller --image-size or a smaller backbone")


def initial_state(
    student: Student,
    *,
    config: FitConfig,
    n_steps: int,
    device: torch.device,
    started: float | None = None,
) -> TrainingState:
    """Adam, its schedule and the generator of masks, before the first step; the run's seconds count from `started`."""
    optimizer = torch.optim.Adam(
        student.parameters(), lr=config.learning_rate, betas=config.betas, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, n_steps=n_steps, schedule=config.schedule)
    )
    needs_loss_scale = autocast_dtype(config, device) is torch.float16
    return TrainingState(
        student=student,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=needs_loss_scale),
        mask_generator=torch.Generator(device).manual_seed(config.seed),
        counted_until=time.perf_counter() if started is None else started,
    )


def learning_rate_factor(step: int, *, n_steps: int, schedule: str) -> float:
    """Factor of the learning rate at a step: 1, or a short linear rise and a half cosine down to 0."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def autocast_dtype(config: FitConfig, device: torch.device) -> torch.dtype | None:
    """What the student's layers compute in; None for float32 throughout.

    `auto` is bfloat16 on GPUs that have it (Ampere and later), float16 on older ones; off on a CPU, and for the student
    of the `edge` preset.
    """
    if config.mixed_precision == "auto":
        # On an H200 edge's student took 5 s in float32 and 9 s in bfloat16, and judged better (0.9006, 0.8964): its
        # layers are so small that a cast takes as long as what it saves (docs/measurements/gpu-first-run.md).
        if device.type != "cuda" or config.student == PRESETS["edge"].student:
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[config.mixed_precision]


def set_training_mode(student: Student, *, freeze_batchnorm: bool) -> None:
    """Training mode for all layers but residuals, which are constant, and BatchNorm where its statistics are frozen."""
    student.train()
    if student.residuals is not None:
        student.residuals.eval()
    if freeze_batchnorm:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@contextmanager
def fast_training(
    student: Student, *, config: FitConfig, device: torch.device, n_images: int | None = None
) -> Iterator[ComputeLoss]:
    """Within it, the student trains faster; `n_images`, if known, are trained on.

    On a CPU that is by cheaper passes that give the same features. A GPU has fast convolutions of its own, which are
    tried out for each size of batch, and may round to TF32; there BatchNorm is not folded, for that takes more small
    steps than it saves. A compiler does all of this itself.

    Yields:
        What computes the loss, compiled if that is asked for.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_fast_kernels())
        if config.compile:
            stack.callback(torch.compiler.reset)  # another run in this process has another student
            yield compiled_loss(min(config.batch_size, n_images or config.batch_size))
            return
        if config.freeze_batchnorm and device.type != "cuda":
            stack.enter_context(folded_batchnorm(student.backbone, image_size=config.training_size))
        if device.type == "cpu" and autocast_dtype(config, device) is None:
            stack.enter_context(winograd_convolutions(student.generation_blocks))
        yield loss_under_masks


@contextmanager
def _fast_kernels() -> Iterator[None]:
    with tf32(True):
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
