"""The training run: images, teacher features, the loop of Section 3.3, calibration, checkpoint."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from train.calibration.common_factors import fit_common_factors
from train.calibration.foreground import load_foreground
from train.calibration.residuals import KnownImages, fit_residuals
from train.calibration.shared_residuals import fit_shared_residuals
from train.checkpoint.provenance import Provenance
from train.checkpoint.tensors import Checkpoint, save_checkpoint
from train.config import FitConfig
from train.data.category import CategoryData
from train.data.defect_sizes import warn_of_small_defects
from train.data.known_defects import KnownDefects
from train.data.regions import REFERENCE_PICTURE
from train.data.shapes import keeps_aspect
from train.fitting.good_images import GoodSplit, load_good
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
from train.support.files import replacing
from train.support.libraries import versions_of

LIBRARIES = ("torch", "timm", "numpy", "pillow")
SAVE_INTERVAL_S = 60.0


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
    finder = load_foreground(config.foreground, weights_dir=runtime.weights_dir)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _tell_of_small_defects(data, known, config)
    good = load_good(data, teacher, student, config=config, scratch_dir=run_dir, runtime=runtime)
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
    _fit_residuals(teacher, student, good, device=device)
    judging = calibrate_run(
        Networks(teacher, student, device),
        good.whole[1],
        defects,
        config=config,
        category=data.category,
        finder=finder,
        run_dir=run_dir,
        shown=good.shown,
    )
    ended.count_seconds()
    provenance = _provenance(data, good, ended, weights=weight_sources, judging=judging)
    _write_run(checkpoint_path, judging.checkpoint(provenance, teacher, student, good.reference))
    resume.remove()


def _tell_of_small_defects(data: CategoryData, known: KnownDefects | None, config: FitConfig) -> None:
    """Warn of a size at which a masked defect of the test set, or a known one, is too small."""
    size, masked = config.image_size, [*data.test, *(() if known is None else known.images)]
    keep_aspect = keeps_aspect(data, asked=config.aspect, size=size, quiet=True)
    warn_of_small_defects(masked, size, keep_aspect=keep_aspect)


def _write_run(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, and beside it the picture that parts are aligned to, where they are: to draw regions on."""
    if checkpoint.reference is not None:
        with replacing(path.parent / REFERENCE_PICTURE) as temporary:
            Image.fromarray(checkpoint.reference.pixels).save(temporary, format="PNG")
    save_checkpoint(path, checkpoint)


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
        n_train=len(good.whole[0]),
        surroundings={
            "device": device.type,
            "torch": torch.__version__,
            "aspect": good.aspect,
            **weights,
        },
    )


def _read_defects(
    known: KnownDefects, data: CategoryData, good: GoodSplit, *, config: FitConfig, runtime: Runtime
) -> DefectImages:
    return read_defects(
        known,
        good.files_in(data.train_good[0].parent),
        config=config,
        bit_depth=good.bit_depth,
        keep_aspect=good.keep_aspect,
        category=data.category,
        strict=runtime.strict,
        reference=good.reference,
    )


def _fit_residuals(teacher: Backbone, student: Student, good: GoodSplit, *, device: torch.device) -> None:
    if student.residuals is not None and student.residuals.are_shared:
        pictures, others = good.whole
        fit_shared_residuals(teacher, student, pictures, held_out=others, device=device)
        return
    train, held_out = (
        KnownImages(part.images, part.teacher_features.stages) for part in (good.train, good.held_out)
    )
    fit_residuals(student, train, held_out=held_out, device=device)
    fit_common_factors(student, train, held_out=held_out, device=device)


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
        n_train=len(good.whole[0]),
        n_held_out=len(good.whole[1]),
        n_broken=good.n_broken,
        bit_depth=good.bit_depth,
        aspect=good.aspect,
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
