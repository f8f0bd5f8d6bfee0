"""Thresholds for another way to remove the background than a checkpoint's own; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.calibration.foreground import ForegroundFinder
from train.calibration.known_defects.judging import calibrate_setting
from train.calibration.thresholds import calibrate, look_at
from train.checkpoint.known_defects import FusionSetting
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, split_good
from train.data.pictures.loading import load_images
from train.errors import DataError
from train.support.devices import Runtime
from train.support.progress import console


@dataclass(frozen=True)
class GoodImages:
    """The good images that a checkpoint was trained and calibrated on.

    Attributes:
        pixels: [N, H, W, 3] uint8.
        paths: their files.
        held_out: positions of those that it was calibrated on.
        shown: [N, H, W] bool, False where an image that kept its shape is filled; None where all were stretched.
    """

    pixels: NDArray[np.uint8]
    paths: list[Path]
    held_out: NDArray[np.intp]
    shown: NDArray[np.bool_] | None

    @property
    def held_out_shown(self) -> NDArray[np.bool_] | None:
        """`shown` of those that it was calibrated on."""
        return None if self.shown is None else self.shown[self.held_out]


def recalibrate(
    checkpoint: Checkpoint, finder: ForegroundFinder, data: CategoryData, *, runtime: Runtime
) -> Checkpoint:
    """Fit a checkpoint's thresholds again, on the same held-out good images with another foreground.

    The result has the same networks and release id. The checkpoint given stays as it is, in memory and on disk. What
    known defects chose stays chosen, the foreground aside.

    Raises:
        DataError: other images than those that it was trained on, so that the held-out ones cannot be known.
    """
    config = checkpoint.config.model_copy(update={"foreground": finder.method})
    good = read_good_images(checkpoint, data, runtime=runtime, what=f"--foreground {finder.method}")
    console.print(
        f"The checkpoint's thresholds are for foreground {checkpoint.config.foreground}; those for "
        f"{finder.method} are fitted on its held-out good images, for this evaluation alone.",
        style="yellow",
    )
    device, known = runtime.torch_device, checkpoint.provenance.known_defects
    networks = checkpoint.teacher.to(device), checkpoint.student.to(device)
    held_out, shown = good.pixels[good.held_out], good.held_out_shown
    category = checkpoint.provenance.category
    if known is None:
        calibration = calibrate(
            *networks, held_out, config=config, category=category, finder=finder, device=device, shown=shown
        ).calibration
    else:
        seen = look_at(*networks, held_out, config=config, finder=finder, device=device, shown=shown)
        setting = FusionSetting.of(config).model_copy(update={"emphasis": known.chosen.emphasis})
        calibration = calibrate_setting(setting, seen, config=config, category=category, finder=finder)
    own = replace(calibration, release_id=checkpoint.release_id, weights_id=checkpoint.weights_id)
    return replace(checkpoint, config=config, calibration=own)


def read_good_images(
    checkpoint: Checkpoint, data: CategoryData, *, runtime: Runtime, what: str
) -> GoodImages:
    """The good images of a checkpoint, split as they were; `what` needs thresholds on them.

    Raises:
        DataError: other images than those that it was trained on, so that the held-out ones cannot be known.
    """
    config = checkpoint.config
    if data.fingerprint() != checkpoint.provenance.data_fingerprint:
        raise DataError(
            f"Thresholds for {what} cannot be fitted: {data.root} does not hold the good images that the checkpoint "
            f"was trained on; give them with --data, or train with {what}."
        )
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        reference=checkpoint.reference,
        what="good images",
    )
    history = checkpoint.provenance
    if checkpoint.reference is not None and len(images.pixels) != history.n_train + history.n_held_out:
        raise DataError(
            f"{len(images.pixels)} good images can be aligned here, and {history.n_train + history.n_held_out} could "
            f"where {history.category!r} was trained, so that the held-out ones cannot be known: is it another OpenCV? "
            "Take the version of constraints.txt, or train again."
        )
    _, held_out = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    return GoodImages(
        images.pixels, [data.train_good[index] for index in images.readable], held_out, images.shown
    )
