"""What the residuals of all places of a picture have in common, found on good images after training.

They are the main components of the training images' residuals, of all places, channels and stages together. What is
left of the residuals then varies less, so that its covariances are found anew, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from train.calibration.residuals import (
    MAX_HELD_OUT,
    KnownImages,
    Moments,
    likeliest,
    set_covariance,
)
from train.method.judging import TEST_BATCH_SIZE
from train.method.residuals import CommonFactors, Residuals, by_place
from train.method.student import Student
from train.support.progress import progress_bar

IMAGES_A_FACTOR = 10  # of fewer images a factor would be what one of them has alone
MOST_NUMBERS = 2**26  # residuals that are in memory: 256 MB
LEAST_SHARE = 1e-6  # of the variance of the first factor; below is rounding


def fit_common_factors(
    student: Student, train: KnownImages, *, held_out: KnownImages, device: torch.device
) -> None:
    """Fit the factors of a student whose `residuals` are fitted, and the covariances of what they leave.

    The training images alone decide the factors. Held-out ones choose how far covariances are shrunk, as before. With
    fewer than `IMAGES_A_FACTOR` images a factor there are fewer factors. A student without any has nothing to fit.
    """
    residuals = student.residuals
    if residuals is None or residuals.common is None:
        return
    with torch.inference_mode(), progress_bar("What places have in common", 2 * len(train)) as bar:
        most_images = max(1, MOST_NUMBERS // sum(map(len, residuals.common.loadings)))
        step = -(-len(train) // most_images)
        some = [  # copies: a part of a batch would keep all of it in memory
            [stage[-start % step :: step].clone() for stage in batch]
            for start, batch in _centred(residuals, student, train, device, bar.advance)
        ]
        set_factors(residuals.common, some)
        left = _left(residuals, student, train, device, bar.advance)
        few = KnownImages(
            held_out.images[:MAX_HELD_OUT], [stage[:MAX_HELD_OUT] for stage in held_out.teacher_features]
        )
        _fit_covariances(residuals, left, list(_left(residuals, student, few, device)))
        residuals.common.whiten(residuals)


def set_factors(common: CommonFactors, batches: Sequence[Sequence[Tensor]]) -> None:
    """Take the main components of centred residuals, batches of [B, C, h, w] a stage, for the factors."""
    stages = [
        torch.cat([batch[index].flatten(1) for batch in batches])  # [N, C * h * w]
        for index in range(len(common.loadings))
    ]
    n_images = len(stages[0])
    # Of all images' products, for there are far fewer images than places and channels.
    products = torch.stack([(stage @ stage.T).double() for stage in stages]).sum(dim=0)
    variances, vectors = torch.linalg.eigh(products)
    count = min(common.loadings[0].shape[1], n_images // IMAGES_A_FACTOR)
    main = [
        index
        for index in range(n_images - 1, n_images - 1 - count, -1)
        if variances[index] > LEAST_SHARE * variances[-1].clamp_min(1e-12)
    ]
    weights = (vectors[:, main] / variances[main].sqrt()).T.to(stages[0])  # [K, N]
    for loadings, stage in zip(common.loadings, stages, strict=True):
        loadings.zero_()
        loadings[:, : len(main)] = (weights @ stage).T


def _fit_covariances(
    residuals: Residuals, train: Iterator[list[Tensor]], held_out: Sequence[list[Tensor]]
) -> None:
    """Give each stage the covariances of what factors leave of residuals, batches of [P, C, B] a stage."""
    stages = list(residuals)
    moments = [Moments(len(stage.whitening), len(stage.channel_mean)) for stage in stages]
    for batch in train:
        for of_stage, left in zip(moments, batch, strict=True):
            of_stage.add(left, torch.zeros_like(left))
    for index, (stage, of_stage) in enumerate(zip(stages, moments, strict=True)):
        left = torch.cat([batch[index] for batch in held_out], dim=-1)
        _, _, cholesky = likeliest(of_stage, theirs=left, ours=torch.zeros_like(left), gains=(0.0,))
        set_covariance(stage, cholesky)


def _left(
    residuals: Residuals,
    student: Student,
    known: KnownImages,
    device: torch.device,
    advance: Callable[[int], None] = lambda n: None,
) -> Iterator[list[Tensor]]:
    """Batch by batch what the factors leave, [P, C, B] a stage, on the CPU."""
    assert residuals.common is not None
    for _, batch in _centred(residuals, student, known, device, advance):
        yield [by_place(left).permute(0, 2, 1).cpu() for left in residuals.common(batch)]


def _centred(
    residuals: Residuals,
    student: Student,
    known: KnownImages,
    device: torch.device,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, list[Tensor]]]:
    """Batch by batch, from which image on, and `Residuals.centred` of images and the teacher's features of them."""
    for start in range(0, len(known), TEST_BATCH_SIZE):
        of_batch = slice(start, start + TEST_BATCH_SIZE)
        images = torch.from_numpy(known.images[of_batch]).to(device)
        features = [
            torch.from_numpy(stage[of_batch]).to(device).permute(0, 3, 1, 2)
            for stage in known.teacher_features
        ]
        yield start, residuals.centred(student(images), features)
        advance(len(images))
