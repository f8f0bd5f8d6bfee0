"""The training run: images, teacher features, the loop of Section 3.3, calibration, checkpoint."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from train.calibration.foreground import load_foreground
from train.calibration.thresholds import calibrate
from train.checkpoint.provenance import Provenance
from train.checkpoint.tensors import save_checkpoint
from train.config import FitConfig
from train.data.category import CategoryData, LoadedImages, load_images, split_good
from train.errors import DataError
from train.fitting.batches import GoodImages
from train.fitting.features import compute_teacher_features
from train.fitting.loop import train_student
from train.fitting.resume import ResumeFile
from train.method.backbones import Backbone
from train.method.student import build_teacher_and_student

LIBRARIES = ("torch", "timm", "numpy", "pillow")
SAVE_INTERVAL_S = 60.0


def fit(
    data: CategoryData,
    *,
    config: FitConfig,
    checkpoint_path: Path,
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
    save_interval_s: float = SAVE_INTERVAL_S,
) -> None:
    """Train, calibrate and write the checkpoint; a run that was interrupted continues from its last saved state.

    Args:
        data: the category's images.
        config: all choices of the run.
        checkpoint_path: where the checkpoint goes; losses.csv, TensorBoard's events and the resume file lie beside it.
        weights_dir: see `train.method.pretrained_weights.load_weights`.
        device: where to train.
        strict: a broken image stops the run.
        save_interval_s: seconds between saves of an unfinished run.
    """
    teacher, student, weight_sources = build_teacher_and_student(config, weights_dir=weights_dir)
    # Before the training, so that missing weights of SAM are reported at once.
    finder = load_foreground(config.foreground, weights_dir=weights_dir)
    images = load_images(data.train_good, image_size=config.image_size, strict=strict, what="good images")
    train_indices, held_out_indices = _split(images, data, config)
    run_dir = checkpoint_path.parent
    run_dir.mkdir(parents=True, exist_ok=True)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    started = time.perf_counter()
    good, held_out = (
        _with_teacher_features(teacher, images, data, indices, scratch_dir=run_dir, device=device)
        for indices in (train_indices, held_out_indices)
    )
    student.set_teacher_means(good.teacher_features.means())
    seconds_teacher = time.perf_counter() - started
    data_fingerprint = data.fingerprint()
    resume = ResumeFile(
        run_dir / "resume.pt",
        run=f"{config.model_dump_json()} {data_fingerprint} {device.type} {torch.__version__} {weight_sources}",
        interval_s=save_interval_s,
    )
    outcome = train_student(
        student, good, held_out=held_out, config=config, run_dir=run_dir, resume=resume, device=device
    )
    calibration = calibrate(
        teacher,
        student,
        held_out.images,
        config=config,
        category=data.category,
        finder=finder,
        device=device,
    )
    provenance = Provenance(
        category=data.category,
        dataset=data.dataset,
        data_root=str(data.root),
        data_fingerprint=data_fingerprint,
        synthetic=data.synthetic,
        n_train=len(good),
        n_held_out=len(held_out),
        n_broken=len(images.broken),
        weights=weight_sources | finder.sources,
        steps=outcome.steps,
        seconds_train=round(seconds_teacher + outcome.seconds, 1),
        final_loss=round(outcome.final_loss, 6),
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    save_checkpoint(
        checkpoint_path,
        config=config,
        provenance=provenance,
        calibration=calibration,
        teacher=teacher,
        student=student,
    )
    resume.remove()


def _split(
    images: LoadedImages, data: CategoryData, config: FitConfig
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the images to train on, of at least one batch, and of those held out."""
    train_indices, held_out_indices = split_good(
        len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed
    )
    if len(train_indices) < config.batch_size:
        raise DataError(
            f"Category {data.category!r} has {len(train_indices)} good images to train on, {len(held_out_indices)} "
            f"held out; expected at least one batch of {config.batch_size}; add images or lower --batch-size."
        )
    return train_indices, held_out_indices


def _with_teacher_features(
    teacher: Backbone,
    images: LoadedImages,
    data: CategoryData,
    indices: NDArray[np.intp],
    *,
    scratch_dir: Path,
    device: torch.device,
) -> GoodImages:
    """The images at these positions and what the teacher sees in them, computed once."""
    pixels = images.pixels[indices]
    features = compute_teacher_features(teacher, pixels, scratch_dir=scratch_dir, device=device)
    return GoodImages(pixels, features, [data.train_good[images.kept[index]].name for index in indices])
