"""How far the teacher's images are sharpened, chosen by how well it sees patches pasted into held-out good images.

A camera's picture, made small, is softer than those that networks learned from, and the teacher misses fine defects.
Raising fine detail helps there. Where good pictures are noisy it raises the noise and hurts. So both are tried, on good
images alone, with the teacher's own features: their Mahalanobis distance needs no trained student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores
from train.calibration.pasting import paste_patches
from train.calibration.residuals import KnownImages, fit_statistics
from train.calibration.shared_residuals import Seen, fit_shared
from train.calibration.weighing import (
    MAX_PASTED_IMAGES,
    MIN_GOOD_IMAGES,
    detectability,
    fusion_of,
)
from train.config import FitConfig
from train.method.backbones import Backbone
from train.method.judging import TEST_BATCH_SIZE
from train.method.residuals import Residuals
from train.support.arrays import FloatArray
from train.support.progress import console

MAX_TRAINING_IMAGES = 256  # enough for the covariances of a comparison
FOLDS = 4
Images = NDArray[np.uint8]


def choose_sharpening(
    teacher: Backbone,
    train: Images,
    *,
    held_out: Images,
    config: FitConfig,
    device: torch.device,
) -> float:
    """Set the teacher, on the device, to the best of the configuration's strengths, and return it.

    Images are good, [N, H, W, 3] uint8. Where several strengths are equally good, and where there are fewer than
    `MIN_GOOD_IMAGES` in all, so that the choice would be chance, it is the first.
    """
    chosen = config.sharpening[0]
    splits = _splits(train, held_out)
    if len(config.sharpening) > 1 and splits:
        values = {
            strength: _detectability(teacher, strength, splits, config=config, device=device)
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


def _splits(train: Images, held_out: Images) -> list[tuple[Images, Images]]:
    """Images to fit on, and images to paste patches into: one pair, or folds where few are held out."""
    if len(held_out) >= MIN_GOOD_IMAGES:
        return [(_some(train, MAX_TRAINING_IMAGES), held_out[:MAX_PASTED_IMAGES])]
    images = np.concatenate([train, held_out])
    if len(images) < MIN_GOOD_IMAGES:
        return []
    fold_of = np.arange(len(images)) % FOLDS
    return [(images[fold_of != fold], images[fold_of == fold]) for fold in range(FOLDS)]


def _detectability(
    teacher: Backbone,
    strength: float,
    splits: Sequence[tuple[Images, Images]],
    *,
    config: FitConfig,
    device: torch.device,
) -> float:
    """d' of pasted against good images, up to `DETECTABILITY_LIMIT`, by the teacher's features with one strength."""
    teacher.sharpen(strength)
    good, pasted = [], []
    for train, held_out in splits:
        what = f"Trying sharpening {strength:g}"
        residuals = _usual_features(teacher, train, held_out, config=config, device=device, what=what)
        good.append(_scores(residuals, teacher, held_out, config=config, device=device))
        copies = paste_patches(held_out, seed=config.seed)
        pasted.append(_scores(residuals, teacher, copies, config=config, device=device))
    return float(detectability(np.concatenate(good), np.concatenate(pasted)))


def _usual_features(
    teacher: Backbone,
    train: Images,
    held_out: Images,
    *,
    config: FitConfig,
    device: torch.device,
    what: str,
) -> Residuals:
    """What the teacher usually sees at each place: the statistics beside a student that foretells nothing."""
    known, others = (KnownImages(images, _features(teacher, images, device)) for images in (train, held_out))
    residuals = Residuals(
        teacher_channels=teacher.channels, image_size=config.image_size, neighbourhoods=config.neighbourhoods
    ).to(device)
    for stage, features in zip(residuals, known.teacher_features, strict=True):
        channels = torch.from_numpy(features).flatten(0, 2)
        stage.set_channels(channels.mean(dim=0), channels.std(dim=0))
    if residuals.are_shared:
        seen, others_seen = _seen(residuals, known), _seen(residuals, others)
        fit_shared(residuals, seen, held_out=others_seen, n_train=len(train), gains=(0.0,))
        return residuals
    nothing = partial(_nothing, residuals)
    fit_statistics(residuals, nothing, known, held_out=others, gains=(0.0,), device=device, what=what)
    return residuals


def _seen(residuals: Residuals, known: KnownImages) -> Iterator[Seen]:
    """What the teacher sees in each image, beside a student that foretells nothing."""
    for index in range(len(known)):
        pairs = []
        for stage, features in zip(residuals, known.teacher_features, strict=True):
            theirs = torch.from_numpy(features[index : index + 1]).permute(0, 3, 1, 2)
            seen = stage.averaged(stage.standardized(theirs.to(stage.channel_mean)))[0].flatten(1).cpu()
            pairs.append((seen, torch.zeros_like(seen)))
        yield pairs


def _nothing(residuals: Residuals, images: Tensor) -> list[Tensor]:
    """What a student that foretells nothing makes of B images, [B, C, h, w] a stage."""
    return [torch.zeros_like(stage.place_mean).expand(len(images), -1, -1, -1) for stage in residuals]


@torch.inference_mode()
def _scores(
    residuals: Residuals, teacher: Backbone, images: Images, *, config: FitConfig, device: torch.device
) -> FloatArray:
    """Each image's score by the teacher's features alone, stages weighted alike, [N]."""
    batches = [
        [distance.cpu().numpy() for distance in residuals(_nothing(residuals, batch), teacher(batch))]
        for batch in _batches(images, device)
    ]
    distances = [np.concatenate(stage) for stage in zip(*batches, strict=True)]
    return image_scores(fuse_distances(distances, fusion_of(config, (1.0, 1.0, 1.0))), config.score_share)


@torch.inference_mode()
def _features(teacher: Backbone, images: Images, device: torch.device) -> list[FloatArray]:
    """The teacher's features [N, h, w, C] a stage."""
    batches = [teacher(batch) for batch in _batches(images, device)]
    return [torch.cat(stage).permute(0, 2, 3, 1).cpu().numpy() for stage in zip(*batches, strict=True)]


def _some(images: Images, count: int) -> Images:
    """At most `count` of the images, evenly from first to last."""
    chosen = np.linspace(0, len(images) - 1, num=min(count, len(images))).astype(int)
    some: Images = images[chosen]
    return some


def _batches(images: Images, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(images), TEST_BATCH_SIZE):
        yield torch.from_numpy(images[start : start + TEST_BATCH_SIZE]).to(device)
