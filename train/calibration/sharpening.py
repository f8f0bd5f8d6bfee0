"""How far the teacher's images are sharpened, chosen by how well it sees patches pasted into held-out good images.

A camera's picture, made small, is softer than those that networks learned from, and the teacher misses fine defects.
Raising fine detail helps there. Where good pictures are noisy it raises the noise and hurts. So both are tried, on good
images alone, with the teacher's own features: their Mahalanobis distance needs no trained student.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores
from train.calibration.pasting import paste_patches
from train.calibration.residuals import KnownImages, fit_statistics
from train.calibration.thresholds import (
    MAX_PASTED_IMAGES,
    MIN_GOOD_IMAGES,
    detectability,
    fusion_of,
)
from train.config import FitConfig
from train.method.backbones import Backbone
from train.method.residuals import Residuals
from train.method.student import TEST_BATCH_SIZE
from train.support.arrays import FloatArray
from train.support.progress import console

MAX_TRAINING_IMAGES = 256  # enough for the covariances of a comparison


def choose_sharpening(
    teacher: Backbone,
    train: NDArray[np.uint8],
    *,
    held_out: NDArray[np.uint8],
    config: FitConfig,
    device: torch.device,
) -> float:
    """Set the teacher, on the device, to the best of the configuration's strengths, and return it.

    Images are good, [N, S, S, 3] uint8. With fewer than `MIN_GOOD_IMAGES` held out the choice would be chance: then it
    is the first strength. So it is where several are equally good.
    """
    chosen = config.sharpening[0]
    if len(config.sharpening) > 1 and len(held_out) >= MIN_GOOD_IMAGES:
        train, held_out = _some(train, MAX_TRAINING_IMAGES), held_out[:MAX_PASTED_IMAGES]
        pasted = paste_patches(held_out, seed=config.seed)
        values = {
            strength: _detectability(teacher, strength, train, held_out, pasted, config=config, device=device)
            for strength in config.sharpening
        }
        chosen = max(values, key=lambda strength: values[strength])
        told = ", ".join(f"{value:.1f} with {strength:g}" for strength, value in values.items())
        console.print(
            f"Sharpening {chosen:g}: images with a pasted patch stand out from good ones by {told} standard deviations."
        )
    if config.can_sharpen:
        teacher.sharpen(chosen)
    return chosen


def _detectability(
    teacher: Backbone,
    strength: float,
    train: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    pasted: NDArray[np.uint8],
    *,
    config: FitConfig,
    device: torch.device,
) -> float:
    """d' of pasted against good images, up to `DETECTABILITY_LIMIT`, by the teacher's features with one strength."""
    teacher.sharpen(strength)
    known, good = (KnownImages(images, _features(teacher, images, device)) for images in (train, held_out))
    residuals = Residuals(
        teacher_channels=teacher.channels, image_size=config.image_size, neighbourhoods=config.neighbourhoods
    ).to(device)
    for stage, features in zip(residuals, known.teacher_features, strict=True):
        channels = torch.from_numpy(features).flatten(0, 2)
        stage.set_channels(channels.mean(dim=0), channels.std(dim=0))

    def nothing(images: Tensor) -> list[Tensor]:
        """A student that foretells nothing."""
        return [torch.zeros_like(stage.place_mean).expand(len(images), -1, -1, -1) for stage in residuals]

    fit_statistics(residuals, nothing, known, held_out=good, gains=(0.0,), device=device)

    def scores(images: NDArray[np.uint8]) -> FloatArray:
        fusion = fusion_of(config, (1.0, 1.0, 1.0))
        with torch.inference_mode():
            distances = [
                [distance.cpu().numpy() for distance in residuals(nothing(batch), teacher(batch))]
                for batch in _batches(images, device)
            ]
        stages = [np.concatenate(stage) for stage in zip(*distances, strict=True)]
        return image_scores(fuse_distances(stages, fusion), config.score_share)

    return float(detectability(scores(held_out), scores(pasted)))


@torch.inference_mode()
def _features(teacher: Backbone, images: NDArray[np.uint8], device: torch.device) -> list[FloatArray]:
    """The teacher's features [N, h, h, C] a stage."""
    batches = [teacher(batch) for batch in _batches(images, device)]
    return [torch.cat(stage).permute(0, 2, 3, 1).cpu().numpy() for stage in zip(*batches, strict=True)]


def _some(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """At most `count` of the images, evenly from first to last."""
    chosen = np.linspace(0, len(images) - 1, num=min(count, len(images))).astype(int)
    some: NDArray[np.uint8] = images[chosen]
    return some


def _batches(images: NDArray[np.uint8], device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(images), TEST_BATCH_SIZE):
        yield torch.from_numpy(images[start : start + TEST_BATCH_SIZE]).to(device)
