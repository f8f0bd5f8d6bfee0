"""Thresholds for another way to remove the background than a checkpoint's own; nothing is written."""

from __future__ import annotations

from dataclasses import replace

from train.calibration.foreground import ForegroundFinder
from train.calibration.thresholds import calibrate
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, load_images, split_good
from train.errors import DataError
from train.support.devices import Runtime
from train.support.progress import console


def recalibrate(
    checkpoint: Checkpoint, finder: ForegroundFinder, data: CategoryData, *, runtime: Runtime
) -> Checkpoint:
    """Fit a checkpoint's thresholds again, on the same held-out good images with another foreground.

    The result has the same networks and release id. The checkpoint given stays as it is, in memory and on disk.

    Raises:
        DataError: other images than those that it was trained on, so that the held-out ones cannot be known.
    """
    config = checkpoint.config.model_copy(update={"foreground": finder.method})
    if data.fingerprint() != checkpoint.provenance.data_fingerprint:
        raise DataError(
            f"Thresholds for --foreground {finder.method} cannot be fitted: {data.root} does not hold the good images "
            f"that the checkpoint was trained on; give them with --data, or train with --foreground {finder.method}."
        )
    console.print(
        f"The checkpoint's thresholds are for foreground {checkpoint.config.foreground}; those for "
        f"{finder.method} are fitted on its held-out good images, for this evaluation alone.",
        style="yellow",
    )
    device = runtime.torch_device
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        what="good images",
    )
    _, held_out = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    calibration = calibrate(
        checkpoint.teacher.to(device),
        checkpoint.student.to(device),
        images.pixels[held_out],
        config=config,
        category=checkpoint.provenance.category,
        finder=finder,
        device=device,
        shown=None if images.shown is None else images.shown[held_out],
    ).calibration
    own = replace(calibration, release_id=checkpoint.release_id, weights_id=checkpoint.weights_id)
    return replace(checkpoint, config=config, calibration=own)
