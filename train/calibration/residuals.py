"""What differences between teacher and student are usual at each place, fitted on good images after training.

The covariance at a place comes from the training images. Few images leave it uncertain, so it is shrunk towards the
mean covariance of all places. How far, and how much of the student's word is subtracted, is decided by what makes the
held-out good images most likely. Parts that lie alike keep the statistics of each place; textures, which lie anyhow,
share those of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.method.judging import TEST_BATCH_SIZE
from train.method.residuals import Residuals, StageResiduals
from train.method.student import Student
from train.support.arrays import FloatArray, require_finite
from train.support.progress import progress_bar

GAINS = (
    0.25,
    0.5,
    0.75,
    1.0,
)  # not 0: verdicts rest on the student too, or nothing would notice that it is broken
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
# Added to each variance, as a share of the mean one: no direction counts more than ten times the usual one. With less,
# the rounding of half precision and int8 is blown up; measures do not change down to 0.0001.
VARIANCE_FLOOR = 0.01
# Of the mean variance, the teacher's being 1: below, as of copies of one picture, there is rounding alone.
LEAST_VARIANCE = 0.01
MAX_HELD_OUT = 64  # images; each gives as many samples as it has places


@dataclass(frozen=True)
class KnownImages:
    """Good images [N, H, W, 3] uint8, and the teacher's features of them, [N, h, w, C] a stage."""

    images: NDArray[np.uint8]
    teacher_features: Sequence[FloatArray]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Usual:
    """Residuals of good images at each of P places, for one gain.

    Attributes:
        mean: [P, C, 1].
        covariance: [P, C, C].
    """

    mean: Tensor
    covariance: Tensor

    def cholesky(self, shrinkage: float) -> Tensor:
        """The Cholesky factors [P, C, C] of the covariances, shrunk towards their mean by 0..1."""
        pooled = self.covariance.mean(dim=0)
        floor = VARIANCE_FLOOR * pooled.diagonal().mean().clamp_min(LEAST_VARIANCE)
        shrunk = self.covariance + shrinkage * (pooled - self.covariance)
        cholesky: Tensor = torch.linalg.cholesky(shrunk + floor * torch.eye(len(pooled), dtype=pooled.dtype))
        return cholesky


class Moments:
    """Sums over images of what teacher and student see at each place, from which any gain's residuals follow.

    Args:
        n_places: P.
        n_channels: C.
    """

    def __init__(self, n_places: int, n_channels: int) -> None:
        self.n_images = 0
        self.teacher, self.student = torch.zeros(2, n_places, n_channels, 1, dtype=torch.float64)
        squares = torch.zeros(3, n_places, n_channels, n_channels, dtype=torch.float64)
        self.teacher_teacher, self.teacher_student, self.student_student = squares

    def add(self, teacher: Tensor, student: Tensor) -> None:
        """Count B images more, [P, C, B] each."""
        ours, theirs = student.double(), teacher.double()
        self.n_images += teacher.shape[-1]
        self.teacher += theirs.sum(dim=-1, keepdim=True)
        self.student += ours.sum(dim=-1, keepdim=True)
        self.teacher_teacher += theirs @ theirs.mT
        self.teacher_student += theirs @ ours.mT
        self.student_student += ours @ ours.mT

    def residuals(self, gain: float) -> Usual:
        """Mean and covariance of the teacher's features minus `gain` times the student's."""
        mean = (self.teacher - gain * self.student) / self.n_images
        crossed = self.teacher_student + self.teacher_student.mT
        squares = self.teacher_teacher - gain * crossed + gain**2 * self.student_student
        return Usual(mean, squares / self.n_images - mean @ mean.mT)


def fit_residuals(
    student: Student, train: KnownImages, *, held_out: KnownImages, device: torch.device
) -> None:
    """Fit the student's `residuals` on its training images, and choose gain and shrinkage on held-out ones.

    The thresholds are fitted on these held-out images too, as on those that weigh the stages: what is chosen is a few
    numbers out of a short list.

    The student is trained and on the device. One that compares by another distance has nothing to fit.

    Raises:
        NotFiniteError: what the student regenerates is not finite.
    """
    if student.residuals is not None:
        what = "What is usual at each place"
        fit_statistics(
            student.residuals, student, train, held_out=held_out, gains=GAINS, device=device, what=what
        )


def fit_statistics(
    residuals: Residuals,
    regenerate: Callable[[Tensor], Sequence[Tensor]],
    train: KnownImages,
    *,
    held_out: KnownImages,
    gains: Sequence[float],
    device: torch.device,
    what: str,
) -> None:
    """Fit residuals to what `regenerate` makes of images [B, H, W, 3] uint8 on the device, [B, C, h, w] a stage.

    See `fit_residuals`; `gains` are those to choose from, `what` names the progress bar.
    """
    stages = list(residuals)
    moments = [Moments(len(stage.whitening), len(stage.channel_mean)) for stage in stages]
    with torch.inference_mode(), progress_bar(what, len(train)) as bar:
        for batch in _seen_by_place(residuals, regenerate, train, device):
            for of_stage, (theirs, ours) in zip(moments, batch, strict=True):
                of_stage.add(theirs, ours)
            bar.advance(batch[0][0].shape[-1])
        few = KnownImages(
            held_out.images[:MAX_HELD_OUT], [stage[:MAX_HELD_OUT] for stage in held_out.teacher_features]
        )
        batches = list(_seen_by_place(residuals, regenerate, few, device))
        for index, stage in enumerate(stages):
            theirs, ours = (torch.cat([batch[index][k] for batch in batches], dim=-1) for k in (0, 1))
            choose_statistics(stage, moments[index], theirs=theirs, ours=ours, gains=gains)


def negative_log_likelihood(centred: Tensor, cholesky: Tensor) -> float:
    """Of centred residuals [P, C, M] under the places' normal distributions, a channel and without the constant."""
    whitened = torch.linalg.solve_triangular(cholesky, centred, upper=False)
    log_determinant = cholesky.diagonal(dim1=1, dim2=2).log().mean()
    return float(whitened.square().mean() / 2 + log_determinant)


def choose_statistics(
    stage: StageResiduals, moments: Moments, *, theirs: Tensor, ours: Tensor, gains: Sequence[float] = GAINS
) -> None:
    """Give a stage the statistics under which held-out features, [P, C, M] of both networks, are most likely."""
    gain, mean, cholesky = likeliest(moments, theirs=theirs, ours=ours, gains=gains)
    stage.gain.fill_(gain)
    stage.place_mean.copy_(mean[..., 0].T.reshape(stage.place_mean.shape))
    set_covariance(stage, cholesky)


def likeliest(
    moments: Moments, *, theirs: Tensor, ours: Tensor, gains: Sequence[float]
) -> tuple[float, Tensor, Tensor]:
    """Gain, mean [P, C, 1] and Cholesky factors [P, C, C] under which held-out features are most likely."""
    best = float("inf")
    for gain in gains:
        usual = moments.residuals(gain)
        centred = theirs.double() - gain * ours.double() - usual.mean
        for shrinkage in SHRINKAGES:
            cholesky = usual.cholesky(shrinkage)
            value = negative_log_likelihood(centred, cholesky)
            if value < best:
                best, chosen = value, (gain, usual.mean, cholesky)
    return chosen


def set_covariance(stage: StageResiduals, cholesky: Tensor) -> None:
    """Measure a stage's residuals by the covariances with these Cholesky factors [P, C, C]."""
    identity = torch.eye(cholesky.shape[-1], dtype=cholesky.dtype).expand_as(cholesky)
    stage.whitening.copy_(torch.linalg.solve_triangular(cholesky.mT, identity, upper=True))


def _seen_by_place(
    residuals: Residuals,
    regenerate: Callable[[Tensor], Sequence[Tensor]],
    known: KnownImages,
    device: torch.device,
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Batch by batch and for each stage, what teacher and student see, [P, C, B] each, on the CPU."""
    for start in range(0, len(known), TEST_BATCH_SIZE):
        of_batch = slice(start, start + TEST_BATCH_SIZE)
        regenerated = regenerate(torch.from_numpy(known.images[of_batch]).to(device))
        seen: list[tuple[Tensor, Tensor]] = []
        for stage, ours, features in zip(residuals, regenerated, known.teacher_features, strict=True):
            theirs = torch.from_numpy(features[of_batch]).to(device).permute(0, 3, 1, 2)
            require_finite(
                ours.cpu().numpy(),
                what=f"The student's features at stage {len(seen) + 1}",
                remedy="train again, with a lower --learning-rate or --mixed-precision off",
            )
            pair = stage.averaged(stage.standardized(theirs)), stage.averaged(ours)
            seen.append((_by_place(pair[0]), _by_place(pair[1])))
        yield seen


def _by_place(feature: Tensor) -> Tensor:
    """[B, C, h, w] to [h * h, C, B], on the CPU."""
    return feature.cpu().flatten(2).permute(2, 1, 0)
