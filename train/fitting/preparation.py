"""What a run needs before its first step: Adam and its schedule, the precision, and a student that trains fast."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from train.config import FitConfig
from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.fitting.cpu.winograd import winograd_convolutions
from train.fitting.resume import TrainingState
from train.method.student import Student

WARM_UP_STEPS = 20  # of the cosine schedule


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
    needs_loss_scale = autocast_dtype(config.mixed_precision, device) is torch.float16
    return TrainingState(
        student=student,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=needs_loss_scale),
        mask_generator=torch.Generator().manual_seed(config.seed),
        counted_until=time.perf_counter() if started is None else started,
    )


def learning_rate_factor(step: int, *, n_steps: int, schedule: str) -> float:
    """Factor of the learning rate at a step: 1, or a short linear rise and a half cosine down to 0."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def autocast_dtype(mixed_precision: str, device: torch.device) -> torch.dtype | None:
    """What the student's layers compute in; None for float32 throughout.

    `auto` is bfloat16 on GPUs that have it (Ampere and later), float16 on older ones, off on a CPU.
    """
    if mixed_precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[mixed_precision]


def set_training_mode(student: Student, *, freeze_batchnorm: bool) -> None:
    """Training mode for all layers but, where it is frozen, BatchNorm: that keeps its pretrained statistics."""
    student.train()
    if freeze_batchnorm:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@contextmanager
def fast_training(student: Student, *, config: FitConfig, device: torch.device) -> Iterator[None]:
    """Within it, the student trains faster: compiled, or with cheaper passes that give the same features.

    A compiler folds frozen BatchNorm itself. GPUs have fast convolutions of their own, and half precision is left
    to PyTorch.
    """
    with ExitStack() as stack:
        if config.compile:
            for module in (student.backbone, *student.generation_blocks):
                module.compile()
        else:
            if config.freeze_batchnorm:
                stack.enter_context(folded_batchnorm(student.backbone, image_size=config.image_size))
            if device.type == "cpu" and autocast_dtype(config.mixed_precision, device) is None:
                stack.enter_context(winograd_convolutions(student.generation_blocks))
        yield
