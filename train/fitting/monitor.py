"""Watches a run: losses in a file, losses and pictures in TensorBoard, a bar, and a stop when nothing gets better."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from model_repository.distance_fusion.map_fusion import fuse_distances
from train.calibration.weighing import fusion_of
from train.config import FitConfig
from train.errors import TrainingError
from train.fitting.features import GoodImages
from train.fitting.gpu.late_looks import SeenStep
from train.fitting.losses import EVENTS_FOLDER, LOSSES_FILE, append_losses, begin_losses
from train.fitting.resume import TrainingState
from train.method.student import Student
from train.support.arrays import FloatArray
from train.support.devices import tf32
from train.support.files import storage_errors
from train.support.progress import ProgressBar

VALIDATION_IMAGES = 32  # enough for a curve; all held-out images would cost a tenth of the training
VALIDATION_BATCH = 16
PICTURES = 4
PICTURE_INTERVAL = 5  # validations


class Monitor:
    """Watches a run from outside the loop; the weights do not depend on it unless a plateau stop is asked for.

    Args:
        run_dir: takes losses.csv and tensorboard/. What an earlier run wrote there is removed; of this one, what was
            written from `first_step` on before an interruption is dropped (in TensorBoard: hidden).
        held_out: good images that are not trained on, and the teacher's features of them.
        config: intervals and patience.
        first_step: where the run starts or continues.
        bar: shows loss and time left.
    """

    def __init__(
        self, run_dir: Path, *, held_out: GoodImages, config: FitConfig, first_step: int, bar: ProgressBar
    ) -> None:
        self.held_out = held_out
        self.config = config
        self.bar = bar
        self.losses_path = run_dir / LOSSES_FILE
        begin_losses(self.losses_path, first_step=first_step)
        self.log_dir = run_dir / EVENTS_FOLDER
        if first_step == 0:
            shutil.rmtree(self.log_dir, ignore_errors=True)
        with storage_errors(self.log_dir):
            self.events = SummaryWriter(self.log_dir, purge_step=first_step)
        self.bar.advance(first_step)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what TensorBoard has not been given yet."""
        with storage_errors(self.log_dir):
            self.events.close()

    def is_on_plateau(self, state: TrainingState) -> bool:
        """Whether training should stop for lack of progress, if that was asked for."""
        patience = self.config.plateau_patience
        return patience is not None and state.validations_since_best >= patience

    def validates(self, state: TrainingState) -> bool:
        """Whether held-out images are looked at after the step that was just done."""
        interval = self.config.validation_interval
        return interval > 0 and state.step % interval == 0

    def after_step(self, state: TrainingState, student: Student) -> None:
        """Log the step that was just done, and look at held-out images when it is time."""
        validation_loss = self._validate(state, student) if self.validates(state) else None
        rate = float(state.scheduler.get_last_lr()[0])
        self.log(SeenStep(state.step - 1, state.recent_losses[-1], rate), validation_loss)
        if validation_loss is None:
            return
        if validation_loss < state.best_validation:
            state.best_validation, state.validations_since_best = validation_loss, 0
        else:
            state.validations_since_best += 1

    def log_all(self, steps: Sequence[SeenStep]) -> None:
        """Log steps after which nothing was looked at."""
        for step in steps:
            self.log(step)

    def log(self, step: SeenStep, validation_loss: float | None = None) -> None:
        """Write a step's losses to the file and to TensorBoard, and move the bar."""
        append_losses(
            self.losses_path,
            step=step.step,
            train_loss=step.loss,
            learning_rate=step.learning_rate,
            validation_loss=validation_loss,
        )
        with storage_errors(self.log_dir):
            self.events.add_scalar("loss/train", step.loss, step.step)
            self.events.add_scalar("learning_rate", step.learning_rate, step.step)
        self.bar.advance(note=f"loss {step.loss:.4f}")

    def _validate(self, state: TrainingState, student: Student) -> float:
        """The loss on held-out good images; now and then TensorBoard also gets pictures of their anomaly maps."""
        loss, distances = look_at_held_out(student, self.held_out, scale=self.config.distance_scale)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss on held-out good images is {loss} after step {state.step}; train again, with a lower "
                "--learning-rate."
            )
        with storage_errors(self.log_dir):
            self.events.add_scalar("loss/validation", loss, state.step - 1)
        if state.step % (PICTURE_INTERVAL * self.config.validation_interval) == 0:
            picture = maps_beside_images(self.held_out.images, distances, config=self.config)
            with storage_errors(self.log_dir):
                self.events.add_image(
                    "held-out good images, anomaly maps", picture, state.step - 1, dataformats="HWC"
                )
        return loss


def look_at_held_out(
    student: Student, held_out: GoodImages, *, scale: float
) -> tuple[float, list[FloatArray]]:
    """The loss of the first held-out images and their distance maps [N, h, w] a stage, without masking.

    It is done in evaluation mode and full float32; every layer's own mode is restored afterwards.
    """
    modes = {module: module.training for module in student.modules()}
    device = next(student.parameters()).device
    student.eval()
    losses, batches = [], []
    n_images = min(len(held_out), VALIDATION_IMAGES)
    with torch.inference_mode(), tf32(False):
        for start in range(0, n_images, VALIDATION_BATCH):
            indices = np.arange(start, min(start + VALIDATION_BATCH, n_images))
            features = held_out.teacher_features.batch(indices, device)
            regenerated = student(torch.from_numpy(held_out.images[indices]).to(device))
            loss, distances = student.loss_and_distances(regenerated, features, scale=scale)
            losses.append(len(indices) * float(loss))
            batches.append([stage.cpu().numpy() for stage in distances])
    for module, training in modes.items():
        module.training = training
    return sum(losses) / n_images, [np.concatenate(stage) for stage in zip(*batches, strict=True)]


def maps_beside_images(
    images: NDArray[np.uint8], distances: Sequence[FloatArray], *, config: FitConfig
) -> NDArray[np.uint8]:
    """A picture [rows * H, 2 * W, 3] uint8: each image beside its anomaly map, black at 0, white at the scale."""
    unweighted = fusion_of(config, (1.0, 1.0, 1.0))
    maps = fuse_distances([stage[:PICTURES] for stage in distances], unweighted)
    coloured = mpl.colormaps["inferno"](maps / max(config.distance_scale, 1e-12))[..., :3]
    rows = np.concatenate([images[: len(maps)], (255 * coloured).astype(np.uint8)], axis=2)
    return rows.reshape(-1, *rows.shape[2:])
