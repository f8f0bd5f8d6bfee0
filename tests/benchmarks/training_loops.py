"""The two loops of the training benchmark: the steps of `train fit`, and the loop that one would write first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.config import FitConfig
from train.fitting.features import Features, GoodImages, batch_indices, compute_teacher_features, load_batches
from train.fitting.gpu.room import choose_place, keep_features
from train.fitting.loop import masked_regeneration_loss, steps_of
from train.fitting.preparation import fast_training, initial_state, learning_rate_factor, set_training_mode
from train.method.backbones import Backbone
from train.method.distances import mask_features
from train.method.student import Student


def kept_features(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    config: FitConfig,
    scratch_dir: Path,
    device: torch.device,
) -> Features:
    """The teacher's features, kept where `train fit` keeps them."""
    if device.type != "cuda":
        return compute_teacher_features(teacher, images, scratch_dir=scratch_dir, device=device)
    place = choose_place(teacher, student, n_images=len(images), config=config, device=device)
    return keep_features(place, teacher, images, device)


def our_losses(
    student: Student, good: GoodImages, *, config: FitConfig, n_steps: int, device: torch.device
) -> Iterator[Tensor]:
    """The steps of `train.fitting.loop.train_student`, without its logs and saved states."""
    state = initial_state(student, config=config, n_steps=n_steps, device=device)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    steps = steps_of(state, device)
    with fast_training(student, config=config, device=device, n_images=len(good)) as compute:
        for batch in load_batches(good, config=config, steps=range(n_steps), device=device):
            steps.keep()
            masks = state.mask_generator
            loss = masked_regeneration_loss(student, batch, masks, config=config, compute=compute)
            steps.take(loss, batch.indices)
            if steps.due:
                steps.look()
            yield loss.detach()


def plain_losses(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    config: FitConfig,
    n_steps: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The loop that one would write first: the teacher at every step, PyTorch's defaults elsewhere."""
    optimizer = torch.optim.Adam(
        student.parameters(), lr=config.learning_rate, betas=config.betas, fused=False
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, n_steps=n_steps, schedule=config.schedule)
    )
    mask_generator = torch.Generator(device).manual_seed(config.seed)
    order = batch_indices(
        len(images), batch_size=config.batch_size, seed=config.seed, drop_last=config.drop_last
    )
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    for _ in range(n_steps):
        image = torch.from_numpy(images[next(order)]).to(device)
        pixels = image.float().permute(0, 3, 1, 2).contiguous()  # [B, 3, H, W] in the default layout
        with torch.no_grad():
            teacher_features = teacher.body((pixels - teacher.mean) / teacher.std)
        backbone = student.backbone
        masked = mask_features(
            backbone.body((pixels - backbone.mean) / backbone.std),
            mask_ratio=config.mask_ratio,
            generator=mask_generator,
            stages=config.generation_stages,
        )
        loss = student.loss(student.regenerate(masked), teacher_features, scale=config.distance_scale)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        loss.item()  # looked at in each step
        yield loss.detach()
