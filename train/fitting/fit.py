"""The training run: images, teacher features, the loop of Section 3.3, calibration, checkpoint."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from train.calibration.foreground import load_foreground
from train.calibration.residuals import KnownImages, fit_residuals
from train.calibration.sharpening import choose_sharpening
from train.checkpoint.provenance import Provenance
from train.checkpoint.tensors import save_checkpoint
from train.config import FitConfig
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData, LoadedImages, load_images, split_good
from train.data.defect_sizes import warn_of_small_defects
from train.data.known_defects import KnownDefects
from train.data.shapes import keeps_aspect
from train.errors import DataError
from train.fitting.batches import GoodImages
from train.fitting.features import compute_teacher_features
from train.fitting.gpu.room import choose_place, keep_features
from train.fitting.judging import Judging, calibrate_run
from train.fitting.known_defects import (
    DefectImages,
    Networks,
    read_defects,
)
from train.fitting.loop import train_student
from train.fitting.masked_loss import require_compiler
from train.fitting.preparation import full_memory_of_gpu, set_teacher_statistics
from train.fitting.resume import ResumeFile, TrainingState
from train.fitting.unfinished import RESUME_FILE, RunInputs
from train.method.backbones import Backbone
from train.method.student import Student, build_teacher_and_student
from train.support.devices import Runtime, memory_errors
from train.support.files import require_writable
from train.support.libraries import require_opencv, versions_of

LIBRARIES = ("torch", "timm", "numpy", "pillow")
SAVE_INTERVAL_S = 60.0


@dataclass(frozen=True)
class GoodSplit:
    """A category's good images and what the teacher sees in them, split for a run.

    Attributes:
        train: to train on.
        held_out: to validate and calibrate on.
        sharpening: of what the teacher sees, see `choose_sharpening`.
        bit_depth: that they were read with, see `find_bit_depth`.
        keep_aspect: whether they kept their shape, see `keeps_aspect`.
        reference: that they were aligned to; None where they are as they lie.
        shown: of the held-out ones, see `LoadedImages`.
        n_broken: files that could not be read, or aligned.
        fingerprint: of the files, see `CategoryData.fingerprint`.
    """

    train: GoodImages
    held_out: GoodImages
    sharpening: float
    bit_depth: int
    keep_aspect: bool
    reference: Reference | None
    shown: NDArray[np.bool_] | None
    n_broken: int
    fingerprint: str


@memory_errors("lower --batch-size or --image-size, or take a smaller backbone")
def fit(
    data: CategoryData,
    *,
    config: FitConfig,
    checkpoint_path: Path,
    runtime: Runtime,
    known: KnownDefects | None = None,
    save_interval_s: float = SAVE_INTERVAL_S,
) -> None:
    """Train, calibrate and write the checkpoint; a run that was interrupted continues from its last saved state.

    The state of another run that lies there is kept beside, and what differs is told, see `ResumeFile.restore`.

    Args:
        data: the category's images.
        config: all choices of the run.
        checkpoint_path: where the checkpoint goes; losses.csv, TensorBoard's events and the resume file lie beside it.
        runtime: where and how to train.
        known: defective images that are not trained on, and choose among what was fitted.
        save_interval_s: seconds between saves of an unfinished run.
    """
    started, run_dir, device = time.perf_counter(), checkpoint_path.parent, runtime.torch_device
    if config.compile:
        require_compiler(device)
    teacher, student, weight_sources = build_teacher_and_student(config, weights_dir=runtime.weights_dir)
    # Before the training, so that missing weights of SAM are reported at once.
    finder = load_foreground(config.foreground, weights_dir=runtime.weights_dir)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    good = _load_good(data, teacher, student, config=config, scratch_dir=run_dir, runtime=runtime)
    defects = None if known is None else _read_defects(known, data, good, config=config, runtime=runtime)
    set_teacher_statistics(student, good.train)
    inputs = _inputs(data, good, config=config, device=device, weights=weight_sources)
    resume = ResumeFile(run_dir / RESUME_FILE, run=inputs, interval_s=save_interval_s)
    with full_memory_of_gpu(config, device):
        ended = train_student(
            student,
            good.train,
            held_out=good.held_out,
            config=config,
            run_dir=run_dir,
            resume=resume,
            device=device,
            started=started,
        )
    fit_residuals(student, _known(good.train), held_out=_known(good.held_out), device=device)
    judging = calibrate_run(
        Networks(teacher, student, device),
        good.held_out.images,
        defects,
        config=config,
        category=data.category,
        finder=finder,
        run_dir=run_dir,
        shown=good.shown,
    )
    ended.count_seconds()
    provenance = _provenance(data, good, ended, weights=weight_sources, judging=judging)
    save_checkpoint(checkpoint_path, judging.checkpoint(provenance, teacher, student, good.reference))
    resume.remove()


def _inputs(
    data: CategoryData,
    good: GoodSplit,
    *,
    config: FitConfig,
    device: torch.device,
    weights: dict[str, str],
) -> RunInputs:
    return RunInputs(
        config=config,
        data_fingerprint=good.fingerprint,
        n_images=len(data.train_good),
        n_train=len(good.train),
        surroundings={
            "device": device.type,
            "torch": torch.__version__,
            "aspect": _aspect(good),
            **weights,
        },
    )


def _aspect(good: GoodSplit) -> Literal["keep", "stretch"]:
    return "keep" if good.keep_aspect else "stretch"


def _read_good(
    data: CategoryData, teacher: Backbone, *, config: FitConfig, runtime: Runtime
) -> tuple[LoadedImages, int, bool, Reference | None]:
    """A category's good images, and how all of its images are read: bit depth, shape, what they are aligned to."""
    bit_depth = find_bit_depth(data, asked=config.bit_depth)
    keep_aspect = keeps_aspect(data, asked=config.aspect, size=config.image_size)
    warn_of_small_defects(data, config.image_size, keep_aspect=keep_aspect)
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        what="good images",
    )
    if config.align == "off":
        return images, bit_depth, keep_aspect, None
    require_opencv()
    from train.calibration.alignment import align_good_images

    images, reference = align_good_images(images, data.train_good, teacher, config=config, runtime=runtime)
    return images, bit_depth, keep_aspect, reference


def _load_good(
    data: CategoryData,
    teacher: Backbone,
    student: Student,
    *,
    config: FitConfig,
    scratch_dir: Path,
    runtime: Runtime,
) -> GoodSplit:
    """Read a category's good images, split them, and run the teacher over them once.

    On a GPU the features are kept where they fit beside the training of the student.

    Raises:
        DataError: no readable image, or fewer to train on than a batch where smaller batches are left out.
    """
    images, bit_depth, keep_aspect, reference = _read_good(data, teacher, config=config, runtime=runtime)
    split = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    n_train, n_held_out = map(len, split)
    if config.drop_last and n_train < config.batch_size:
        raise DataError(
            f"Category {data.category!r} has {n_train} good images to train on, {n_held_out} held out; expected at "
            f"least one batch of {config.batch_size}; add {config.batch_size - n_train} more, or train smaller "
            f"batches: python -m train fit --category {shlex.quote(data.category)} --batch-size {n_train} and the "
            "options of before."
        )
    require_writable(scratch_dir)
    place, device = None, runtime.torch_device
    pixels_of = [images.pixels[indices] for indices in split]
    sharpening = choose_sharpening(teacher, pixels_of[0], held_out=pixels_of[1], config=config, device=device)
    if device.type == "cuda":
        place = choose_place(teacher, student, n_images=n_train + n_held_out, config=config, device=device)
    parts = []
    for indices, pixels in zip(split, pixels_of, strict=True):
        features = (
            compute_teacher_features(teacher, pixels, scratch_dir=scratch_dir, device=device)
            if place is None
            else keep_features(place, teacher, pixels, device)
        )
        file_names = [data.train_good[images.readable[index]].name for index in indices]
        parts.append(GoodImages(pixels, features, file_names))
    train, held_out = parts
    return GoodSplit(
        train=train,
        held_out=held_out,
        sharpening=sharpening,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        reference=reference,
        shown=None if images.shown is None else images.shown[split[1]],
        n_broken=len(images.broken),
        fingerprint=data.fingerprint(),
    )


def _read_defects(
    known: KnownDefects, data: CategoryData, good: GoodSplit, *, config: FitConfig, runtime: Runtime
) -> DefectImages:
    folder = data.train_good[0].parent
    return read_defects(
        known,
        [(part.images, [folder / name for name in part.file_names]) for part in (good.train, good.held_out)],
        config=config,
        bit_depth=good.bit_depth,
        keep_aspect=good.keep_aspect,
        category=data.category,
        strict=runtime.strict,
        reference=good.reference,
    )


def _known(good: GoodImages) -> KnownImages:
    return KnownImages(good.images, good.teacher_features.stages)


def _provenance(
    data: CategoryData,
    good: GoodSplit,
    ended: TrainingState,
    *,
    weights: dict[str, str],
    judging: Judging,
) -> Provenance:
    return Provenance(
        category=data.category,
        dataset=data.dataset,
        data_root=str(data.root),
        data_path=str(data.root.absolute()),
        data_fingerprint=good.fingerprint,
        synthetic=data.synthetic,
        n_train=len(good.train),
        n_held_out=len(good.held_out),
        n_broken=good.n_broken,
        bit_depth=good.bit_depth,
        aspect=_aspect(good),
        aligned=good.reference is not None,
        sharpening=good.sharpening,
        weights=weights | judging.finder.sources,
        steps=ended.step,
        seconds_train=round(ended.seconds, 1),
        final_loss=round(float(np.mean(ended.recent_losses)), 6),
        usual_scores=judging.calibrated.usual,
        versions=versions_of(LIBRARIES, aligned=good.reference is not None),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        known_defects=judging.known_defects,
    )
