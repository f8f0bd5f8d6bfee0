"""The picture that a category's parts are aligned to, and whether to align at all, found by good images alone.

The reference is the median of good training images that were aligned to one of them, and again to what came of it. How
alike an aligned picture must be follows from held-out good images: with patches pasted in, as a part with a defect is,
they must pass; cut to pieces and shuffled, as no part is, they must not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.alignment.picture_alignment import Aligned, Aligner, gray_of, turn_of, warp
from model_repository.alignment.reference_picture import Reference
from model_repository.distance_fusion.fusion_shown import hide_beside
from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores, remove_background
from train.calibration.pasting import COPIES, paste_patches
from train.calibration.weighing import MAX_PASTED_IMAGES, MIN_GOOD_IMAGES, detectability, fusion_of
from train.config import FitConfig
from train.data.category import split_good
from train.data.pictures.alignment import align_each, align_images
from train.data.pictures.loaded import LoadedImages, shown_of
from train.method.backbones import Backbone
from train.method.judging import TEST_BATCH_SIZE
from train.support.arrays import FloatArray
from train.support.devices import Runtime
from train.support.progress import console

MAX_REFERENCE_IMAGES = 64  # enough for a median
MAX_TRAINING_IMAGES = 256  # enough for mean and spread of a comparison
ROUNDS = 3  # of aligning to what came of the round before
ALIKE_SHARE = 0.75  # of the images, the most alike: the median is of these
TAIL = 0.05  # share of images that may be odd ones, of those that the least correlation is fitted on
BLOCKS = 4  # a side, of a picture that is shuffled
Images = NDArray[np.uint8]
Indices = NDArray[np.intp]
Boxes = NDArray[np.int32] | None  # see `LoadedImages.boxes`
Shown = NDArray[np.bool_] | None  # see `fusion_shown.shown_pixels`
Chosen = TypeVar("Chosen", Images, Indices)


def align_good_images(
    images: LoadedImages,
    paths: Sequence[Path],
    teacher: Backbone,
    *,
    config: FitConfig,
    runtime: Runtime,
) -> tuple[LoadedImages, Reference | None]:
    """A run's good images as it sees them, and what they are aligned to; None where `auto` leaves them as they lie.

    Args:
        images: as they lie.
        paths: the files that they were loaded from.
        teacher: on the device, by whose features `auto` chooses.
        config: asks for alignment, or leaves it to be chosen.
        runtime: where to compute, and whether to stop at an image that cannot be aligned.

    Raises:
        DataError: one cannot be aligned when strict, or none can be.
    """
    parts = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    device, strict = runtime.torch_device, runtime.strict
    if config.align == "auto" and not _helps(teacher, images, *parts, config=config, device=device):
        return images, None
    reference = fit_reference(*(images.pixels[indices] for indices in parts), seed=config.seed)
    aligned = align_images(images, paths, reference=reference, strict=strict, what="good images")
    assert aligned.sent is not None
    shifts, turns = zip(
        *(turn_of(motion, reference.pixels.shape) for motion in aligned.sent.motions), strict=True
    )
    console.print(
        f"Aligned {len(aligned.pixels)} good images to a reference picture: shifts of up to {max(shifts):.0f} pixels, "
        f"turns of up to {max(map(abs, turns)):.0f} degrees; a picture that correlates with it by less than "
        f"{reference.least_correlation:.2f} cannot be aligned."
    )
    return aligned, reference


def fit_reference(train: Images, held_out: Images, *, seed: int) -> Reference:
    """What pictures are aligned to, of good images [N, H, W, 3] uint8 to train on and held out."""
    pixels = reference_pixels(_some(train, MAX_REFERENCE_IMAGES))
    # The reference is a median, which owes little to each of the images that it was made of.
    known = held_out if len(held_out) >= MIN_GOOD_IMAGES else np.concatenate([train, held_out])
    return Reference(pixels, least_correlation(pixels, _some(known, MAX_PASTED_IMAGES), seed=seed))


def reference_pixels(images: Images) -> NDArray[np.uint8]:
    """The median [H, W] uint8, gray, of aligned images [N, H, W, 3]; it lies in the middle of how they lie."""
    grays = np.stack([gray_of(image) for image in images])
    distances = ((grays - grays.mean(axis=0)) ** 2).mean(axis=(1, 2))
    pixels = grays[int(distances.argmin())]
    for number in range(ROUNDS):
        moved = _nearest(images, Reference(pixels, -1.0))
        order = np.argsort([-one.correlation for one in moved], kind="stable")
        alike = [moved[index] for index in order[: max(1, round(ALIKE_SHARE * len(moved)))]]
        pixels = np.median([gray_of(one.pixels) for one in alike], axis=0).astype(np.uint8)
        if number < ROUNDS - 1:  # the last median stays sharp
            middle = np.median([one.motion for one in alike], axis=0)
            pixels = warp(pixels, _rigid_inverse(middle)).astype(np.uint8)
    return np.asarray(pixels)


def least_correlation(pixels: NDArray[np.uint8], images: Images, *, seed: int) -> float:
    """How alike an aligned picture must be: half-way between parts, with pasted patches too, and what is no part.

    A few of the images, one at least, may be odd ones. Where the rest overlaps with what is no part, the rest passes.

    Args:
        pixels: [H, W] uint8, of the reference.
        images: [N, H, W, 3] uint8, good.
        seed: of patches and shuffling.
    """
    reference = Reference(pixels, -1.0)
    parts = [*images, *paste_patches(images, seed=seed)]  # copies of one image after those of another
    of_parts, of_pieces = (
        np.array([one.correlation for one in _nearest(pictures, reference)])
        for pictures in (parts, list(_shuffled(images, seed=seed)))
    )
    of_images = of_parts.reshape(-1, len(images)).min(axis=0)
    lowest = float(np.quantile(of_images, TAIL, method="higher"))
    highest = float(np.quantile(of_pieces, 1 - TAIL, method="lower"))
    return (lowest + highest) / 2 if highest < lowest else lowest


def _shuffled(images: Images, *, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Each image cut into blocks that lie in another order."""
    generator = np.random.default_rng(seed)
    height, width = (side // BLOCKS for side in images.shape[1:3])
    for image in images:
        shuffled = image.copy()
        for to, source in enumerate(generator.permutation(BLOCKS * BLOCKS)):
            (row, column), (from_row, from_column) = divmod(to, BLOCKS), divmod(int(source), BLOCKS)
            shuffled[row * height : (row + 1) * height, column * width : (column + 1) * width] = image[
                from_row * height : (from_row + 1) * height, from_column * width : (from_column + 1) * width
            ]
        yield shuffled


def _helps(
    teacher: Backbone,
    images: LoadedImages,
    train: Indices,
    held_out: Indices,
    *,
    config: FitConfig,
    device: torch.device,
) -> bool:
    """Whether pasted patches stand out more from aligned good images than from those as they lie; told.

    By more than the standard error of that, so that pictures that lie alike stay as they are.
    """
    pairs = _splits(train, held_out)
    if not pairs:
        console.print(
            f"Alignment off: {len(train) + len(held_out)} good images are too few to see whether it helps; --align on "
            "aligns all the same.",
            style="yellow",
        )
        return False
    as_they_lie, aligned, refused, count = [], [], 0, 0
    for indices, others_indices in pairs:
        fitted_on, others = (images.pixels[some] for some in (indices, others_indices))
        boxes = None if images.boxes is None else images.boxes[others_indices]
        of_copies = None if boxes is None else np.tile(boxes, (COPIES, 1))
        kinds = [(others, boxes), (paste_patches(others, seed=config.seed), of_copies)]
        lying = [(pictures, shown_of(lie, pictures.shape)) for pictures, lie in kinds]
        as_they_lie.append(_scores(teacher, fitted_on, lying, config=config, device=device))
        reference = fit_reference(fitted_on, others, seed=config.seed)
        (moved, _), *compared = [_aligned(*one, reference) for one in ((fitted_on, None), *kinds)]
        count, refused = count + len(others), refused + len(others) - len(compared[0][0])
        if all(map(len, (moved, *(pictures for pictures, _ in compared)))):
            aligned.append(_scores(teacher, moved, compared, config=config, device=device))
    if refused > max(1.0, TAIL * count) or len(aligned) < len(pairs):
        console.print(f"Alignment off: {refused} of {count} good images cannot be aligned to the others.")
        return False
    (before, error), (after, _) = _told_apart(as_they_lie), _told_apart(aligned)
    chosen = after > before + error
    console.print(
        f"Alignment {'on' if chosen else 'off'}: images with a pasted patch stand out from held-out good ones by "
        f"{after:.1f} standard deviations aligned, {before:.1f} as they lie (give or take {error:.1f})."
    )
    return chosen


def _splits(train: Indices, held_out: Indices) -> list[tuple[Indices, Indices]]:
    """Those of images to fit on, and images to paste patches into: one pair, or two where few are held out."""
    if len(held_out) >= MIN_GOOD_IMAGES:
        return [(_some(train, MAX_TRAINING_IMAGES), _some(held_out, MAX_PASTED_IMAGES))]
    indices = np.concatenate([train, held_out])
    if len(indices) < 2 * MIN_GOOD_IMAGES:
        return []
    halves = indices[::2], indices[1::2]
    return [
        (_some(first, MAX_TRAINING_IMAGES), _some(second, MAX_PASTED_IMAGES))
        for first, second in (halves, halves[::-1])
    ]


def _aligned(images: Images, boxes: Boxes, reference: Reference) -> tuple[Images, Shown]:
    """Those that can be aligned, and where they show the pictures that they were made of."""
    results = align_each(images, reference, what="to compare")
    found = {index: one for index, one in enumerate(results) if isinstance(one, Aligned)}
    if not found:
        return images[:0], None
    pixels = np.stack([one.pixels for one in found.values()])
    lie = None if boxes is None else boxes[list(found)]
    return pixels, shown_of(lie, pixels.shape, np.stack([one.motion for one in found.values()]))


def _told_apart(scores: Sequence[tuple[FloatArray, ...]]) -> tuple[float, float]:
    """The detectability index d' of pasted against good images, and its standard error."""
    good, pasted = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    index = float(detectability(good, pasted))
    return index, math.sqrt(1 / len(good) + 1 / len(pasted) + index**2 / (2 * len(good)))


def _scores(
    teacher: Backbone,
    train: Images,
    others: Sequence[tuple[Images, Shown]],
    *,
    config: FitConfig,
    device: torch.device,
) -> tuple[FloatArray, ...]:
    """Scores [N] of each of the others by the teacher's features: how far they are from what is usual at their place.

    The distance is the squared one from the mean of the images to train on, over their variance there and the
    channel's elsewhere: a diagonal Mahalanobis distance, which any teacher has memory for. What is not shown of a
    picture counts nowhere, as in the run itself.
    """
    means, squares = _moments(teacher, train, device)
    spreads = [square - mean**2 for mean, square in zip(means, squares, strict=True)]
    spreads = [(one + one.mean(dim=(1, 2), keepdim=True)).clamp_min(1e-12) for one in spreads]
    found = []
    for images, shown in others:
        maps: list[list[NDArray[np.float32]]] = [[], [], []]
        for features in _seen(teacher, images, device):
            for own, feature, mean, spread in zip(maps, features, means, spreads, strict=True):
                own.append(((feature - mean) ** 2 / spread).mean(dim=1).cpu().numpy())
        distances = hide_beside([np.concatenate(own) for own in maps], shown)
        fused = remove_background(fuse_distances(distances, fusion_of(config, (1.0, 1.0, 1.0))), shown)
        found.append(image_scores(fused, config.score_share))
    return tuple(found)


def _moments(
    teacher: Backbone, images: Images, device: torch.device
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Mean and mean square [C, h, w] of the teacher's features of each stage."""
    means, squares = [torch.zeros(1, device=device)] * 3, [torch.zeros(1, device=device)] * 3
    for features in _seen(teacher, images, device):
        means = [mean + one.sum(dim=0) / len(images) for mean, one in zip(means, features, strict=True)]
        squares = [
            mean + (one**2).sum(dim=0) / len(images) for mean, one in zip(squares, features, strict=True)
        ]
    return means, squares


@torch.inference_mode()
def _seen(teacher: Backbone, images: Images, device: torch.device) -> Iterator[list[torch.Tensor]]:
    """The teacher's features [B, C, h, w] a stage, batch by batch."""
    for start in range(0, len(images), TEST_BATCH_SIZE):
        yield list(teacher(torch.from_numpy(images[start : start + TEST_BATCH_SIZE]).to(device)))


def _nearest(images: Images | Sequence[NDArray[np.uint8]], reference: Reference) -> list[Aligned]:
    """Images as near to a reference as they come."""
    aligner = Aligner(reference)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(aligner.nearest, images))


def _rigid_inverse(motion: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of a motion that may be an average of several: turned alone, not scaled."""
    angle = math.atan2(motion[1, 0] - motion[0, 1], motion[0, 0] + motion[1, 1])
    cos, sin = math.cos(angle), math.sin(angle)
    rigid = np.array([[cos, -sin, motion[0, 2]], [sin, cos, motion[1, 2]]])
    return np.asarray(cv2.invertAffineTransform(rigid), np.float64)


def _some(images: Chosen, count: int) -> Chosen:
    """At most `count` of images, or of indices, evenly from first to last."""
    chosen: Chosen = images[np.linspace(0, len(images) - 1, num=min(count, len(images))).astype(int)]
    return chosen
