"""The training run: images, teacher features, the loop of Section 3.3, calibration, checkpoint."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from train.calibration import fit_calibration
from train.checkpoint import read_header, save_checkpoint
from train.config import FitConfig, fit_config
from train.data import CategoryData, load_images, split_good
from train.errors import DataError
from train.evaluate import compute_distances
from train.features import TeacherFeatures, compute_teacher_features
from train.foreground import find_foreground, load_foreground
from train.model import Student, build_teacher_and_student, distillation_loss, mask_features
from train.progress import progress_bar
from train.provenance import Provenance

LIBRARIES = ("torch", "timm", "numpy", "pillow")
WARM_UP_STEPS = 20  # of the cosine schedule


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        checkpoint_path: where the checkpoint lies.
        trained: False when it was up to date and nothing was done.
    """

    checkpoint_path: Path
    trained: bool


def fit_category(
    data: CategoryData,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    run_dir: Path,
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
    force: bool,
) -> FitResult:
    """Train a category unless its checkpoint already answers to what is asked.

    Args:
        data: the category's images.
        preset: None means that of an existing checkpoint, or `edge`.
        overrides: fields of `FitConfig` that were asked for; all others may be the checkpoint's.
        run_dir: takes checkpoint.safetensors and tensorboard/.
        weights_dir: pretrained weights, see `train.backbones.load_weights`.
        device: where to train.
        strict: a broken image stops the run.
        force: train even when the checkpoint is up to date.

    Raises:
        UserError: bad options, images or weights, or an existing checkpoint that is damaged or foreign; it stays
            as it is.
    """
    checkpoint_path = run_dir / "checkpoint.safetensors"
    config = fit_config(
        preset or "edge", overrides
    )  # faulty options are told even when nothing is to be done
    if not force and is_up_to_date(checkpoint_path, data=data, preset=preset, overrides=overrides):
        return FitResult(checkpoint_path, trained=False)
    fit(
        data,
        config=config,
        checkpoint_path=checkpoint_path,
        weights_dir=weights_dir,
        device=device,
        strict=strict,
    )
    return FitResult(checkpoint_path, trained=True)


def is_up_to_date(
    checkpoint_path: Path, *, data: CategoryData, preset: str | None, overrides: Mapping[str, Any]
) -> bool:
    """Whether a checkpoint was trained on these very images with every option that was asked for.

    Raises:
        CheckpointError: a file that is damaged or foreign; it may be worth more than a new one.
    """
    if not checkpoint_path.exists():
        return False
    header = read_header(checkpoint_path)
    asked = dict(overrides) | ({"preset": preset} if preset else {})
    same_options = all(getattr(header.config, name) == value for name, value in asked.items())
    return same_options and header.provenance.data_fingerprint == data.fingerprint()


def fit(
    data: CategoryData,
    *,
    config: FitConfig,
    checkpoint_path: Path,
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
) -> None:
    """Train, calibrate and write the checkpoint."""
    teacher, student, weight_sources = build_teacher_and_student(config, weights_dir=weights_dir)
    foreground = load_foreground(
        config.foreground, weights_dir=weights_dir
    )  # told before the training, not after
    images = load_images(data.train_good, image_size=config.image_size, strict=strict, what="good images")
    train_indices, held_out_indices = split_good(
        len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed
    )
    if len(train_indices) < config.batch_size:
        raise DataError(
            f"Category {data.category!r} has {len(train_indices)} good images to train on, {len(held_out_indices)} "
            f"held out; expected at least one batch of {config.batch_size}; add images or lower --batch-size."
        )
    run_dir = checkpoint_path.parent
    run_dir.mkdir(parents=True, exist_ok=True)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    started = time.perf_counter()
    train_images = images.pixels[train_indices]
    features = compute_teacher_features(teacher, train_images, scratch_dir=run_dir, device=device)
    final_loss = train_student(
        student, train_images, features, config=config, log_dir=run_dir / "tensorboard", device=device
    )
    seconds_train = time.perf_counter() - started

    held_out = compute_distances(
        teacher,
        student,
        images.pixels[held_out_indices],
        alpha=config.alpha,
        device=device,
        what="Calibration",
    )
    save_checkpoint(
        checkpoint_path,
        config=config,
        provenance=Provenance(
            category=data.category,
            dataset=data.dataset,
            data_root=str(data.root),
            data_fingerprint=data.fingerprint(),
            synthetic=data.synthetic,
            n_train=len(train_indices),
            n_held_out=len(held_out_indices),
            n_broken=len(images.broken),
            weights=weight_sources | foreground.sources,
            seconds_train=round(seconds_train, 1),
            final_loss=round(final_loss, 6),
            versions={name: importlib.metadata.version(name) for name in LIBRARIES},
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        calibration=fit_calibration(
            held_out,
            config=config,
            category=data.category,
            foreground=find_foreground(images.pixels[held_out_indices], foreground, device=device),
            foreground_id=foreground.id,
        ),
        teacher=teacher,
        student=student,
    )


def train_student(
    student: Student,
    images: NDArray[np.uint8],
    teacher_features: TeacherFeatures,
    *,
    config: FitConfig,
    log_dir: Path,
    device: torch.device,
) -> float:
    """Teach the student to regenerate the teacher's features (Section 3.3, Algorithm 1).

    Args:
        student: changed in place; left in evaluation mode.
        images: [N, S, S, 3] uint8, good ones.
        teacher_features: of the same images, in the same order.
        config: schedule, masking and loss.
        log_dir: TensorBoard events; those of an earlier run are removed.
        device: where the student is.

    Returns:
        The mean loss of the last ten steps.
    """
    n_steps = config.total_steps(len(images))
    optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, betas=config.betas)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, n_steps=n_steps, schedule=config.schedule)
    )
    mask_generator = torch.Generator().manual_seed(config.seed)
    batches = batch_indices(len(images), batch_size=config.batch_size, seed=config.seed)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    shutil.rmtree(log_dir, ignore_errors=True)
    losses = []
    with SummaryWriter(log_dir) as events, progress_bar("Training", n_steps) as bar:
        for step in range(n_steps):
            indices = next(batches)
            image = torch.from_numpy(images[indices]).to(device)  # [B, S, S, 3]
            student_features = student.backbone(image)
            masked = mask_features(student_features, mask_ratio=config.mask_ratio, generator=mask_generator)
            regenerated = student.regenerate(masked)
            loss = distillation_loss(regenerated, teacher_features.batch(indices, device), alpha=config.alpha)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            events.add_scalar("loss/train", losses[-1], step)
            events.add_scalar("learning_rate", scheduler.get_last_lr()[0], step)
            bar.advance(note=f"loss {losses[-1]:.4f}")
    student.eval()
    return float(np.mean(losses[-10:]))


def learning_rate_factor(step: int, *, n_steps: int, schedule: str) -> float:
    """Factor of the learning rate at a step: 1, or a short linear rise and a half cosine down to 0."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def batch_indices(n_images: int, *, batch_size: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Endless batches of positions, each epoch in a new order; an epoch's smaller rest is left out."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(n_images)
        for start in range(0, n_images - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def set_training_mode(student: Student, *, freeze_batchnorm: bool) -> None:
    """Training mode; with frozen BatchNorm its layers keep their pretrained statistics."""
    student.train()
    if freeze_batchnorm:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
