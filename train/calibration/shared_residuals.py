"""What differences are usual in pictures that keep their own size, at whatever place; fitted after training.

They share one mean and one covariance, and a few hundred usual differences that cover all others. These are picked one
after the other, each the farthest from those before it, so that what is rare on good pictures, as the corner of a
printed letter, is among them too (the coreset of PatchCore, Roth et al. 2022; here of what the student does not
foretell). Pictures are seen whole, as they are served: a crop's border is not what a picture has there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.calibration.residuals import GAINS, VARIANCE_FLOOR, Moments, choose_statistics
from train.method.backbones import Backbone
from train.method.judging import strip_by_strip
from train.method.residuals import Residuals, StageResiduals
from train.method.student import Student
from train.support.arrays import require_finite
from train.support.progress import progress_bar

MAX_PICTURES = 24  # each has some 100,000 places
MAX_SAMPLES = 2**18  # places of which usual differences are picked, of each stage
MAX_HELD_OUT = 2**16  # places of held-out pictures that choose how much of the student's word is subtracted
AT_ONCE = 2**14  # places whose distances from all usual differences are in memory
# What teacher and student see in a picture: standardised, averaged over neighbourhoods, [C, M] each, a stage.
Seen = Sequence[tuple[Tensor, Tensor]]


def fit_shared_residuals(
    teacher: Backbone,
    student: Student,
    train: NDArray[np.uint8],
    *,
    held_out: NDArray[np.uint8],
    device: torch.device,
) -> None:
    """Fit the student's residuals on whole pictures [N, H, W, 3] uint8; see `train.calibration.residuals`.

    Raises:
        NotFiniteError: what the student regenerates is not finite.
    """
    if student.residuals is None:
        return
    pictures, others = _some(train), _some(held_out)
    with torch.inference_mode(), progress_bar("What is usual", len(pictures) + len(others)) as bar:

        def seen(some: NDArray[np.uint8]) -> Iterator[Seen]:
            for picture in some:
                yield see_whole(teacher, student, picture, device)
                bar.advance()

        fit_shared(student.residuals, seen(pictures), held_out=seen(others), n_train=len(pictures))


def see_whole(teacher: Backbone, student: Student, picture: NDArray[np.uint8], device: torch.device) -> Seen:
    """What both see in a whole picture [H, W, 3] uint8, a large one in strips; the student has residuals."""

    def see(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        image, seen = torch.from_numpy(pixels).to(device), []
        for stage, theirs, ours in zip(student.residuals or (), teacher(image), student(image), strict=True):
            require_finite(
                ours.cpu().numpy(),
                what="The student's features",
                remedy="train again, with a lower --learning-rate or --mixed-precision off",
            )
            seen += [stage.averaged(stage.standardized(theirs)), stage.averaged(ours)]
        return [features.cpu().numpy() for features in seen]

    seen = strip_by_strip(see, picture[None], teacher=teacher, student=student)
    features = [torch.from_numpy(stage[0]).flatten(1) for stage in seen]
    return list(zip(features[::2], features[1::2], strict=True))


def fit_shared(
    residuals: Residuals,
    train: Iterable[Seen],
    *,
    held_out: Iterable[Seen],
    n_train: int,
    gains: Sequence[float] = GAINS,
) -> None:
    """Fit residuals whose places share their statistics to what is seen in `n_train` pictures and in held-out ones."""
    stages = list(residuals)
    moments = [Moments(1, len(stage.channel_mean)) for stage in stages]
    samples: list[list[tuple[Tensor, Tensor]]] = [[] for _ in stages]
    others: list[list[tuple[Tensor, Tensor]]] = [[] for _ in stages]
    generator = torch.Generator().manual_seed(0)
    for seen in train:
        for index, (theirs, ours) in enumerate(seen):
            moments[index].add(theirs[None], ours[None])
            chosen = _draw(theirs, max(1, MAX_SAMPLES // n_train), generator)
            samples[index].append((theirs[:, chosen], ours[:, chosen]))
    for seen in held_out:
        for index, (theirs, ours) in enumerate(seen):
            step = max(1, MAX_PICTURES * theirs.shape[1] // MAX_HELD_OUT)
            others[index].append((theirs[:, ::step], ours[:, ::step]))
    for stage, of_stage, picked, other in zip(stages, moments, samples, others, strict=True):
        theirs, ours = _joined(other)
        choose_statistics(stage, of_stage, theirs=theirs[None], ours=ours[None], gains=gains)
        theirs, ours = _joined(picked)
        set_usual(stage, (theirs - float(stage.gain) * ours).T)


def set_usual(stage: StageResiduals, differences: Tensor) -> None:
    """Pick a stage's usual differences out of those [N, C] of good pictures; mean and whitening are set.

    The whitening then counts how much differences vary around the nearest usual one.
    """
    mean, whitening = stage.place_mean[:, 0, 0].cpu(), stage.whitening[0].cpu()
    whitened = (differences - mean) @ whitening
    usual = farthest(whitened, len(stage.usual))
    around = (whitened - usual[nearest(whitened, usual)]).double()
    covariance = around.T @ around / len(around)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    floor = VARIANCE_FLOOR * covariance.diagonal().mean().clamp_min(1e-6)
    cholesky = torch.linalg.cholesky(covariance + floor * identity)
    again = torch.linalg.solve_triangular(cholesky.mT, identity, upper=True)
    stage.whitening.copy_((whitening.double() @ again)[None])
    stage.usual.copy_(usual.double() @ again)


def farthest(points: Tensor, count: int) -> Tensor:
    """`count` of the points [N, C], each the farthest from those before it; the first is the nearest to their mean.

    Where there are fewer, some come more than once.
    """
    first = int((points - points.mean(dim=0)).square().sum(dim=1).argmin())
    chosen, apart = [first], (points - points[first]).square().sum(dim=1)
    for _ in range(count - 1):
        chosen.append(int(apart.argmax()))
        apart = torch.minimum(apart, (points - points[chosen[-1]]).square().sum(dim=1))
    return points[chosen]


def nearest(points: Tensor, usual: Tensor) -> Tensor:
    """[N]: which of the usual ones [K, C] is nearest to each point [N, C]."""
    return torch.cat([torch.cdist(some, usual).argmin(dim=1) for some in torch.split(points, AT_ONCE)])


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([pair[0] for pair in pairs], dim=1), torch.cat([pair[1] for pair in pairs], dim=1)


def _draw(theirs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some different places of those [C, M], the likelier the more the teacher sees (Efraimidis and Spirakis 2006)."""
    interest = theirs.square().mean(dim=0).double()
    chance = torch.rand(len(interest), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    keys = chance.log() / (interest + interest.mean()).clamp_min(1e-12)
    return keys.topk(min(count, len(keys))).indices.sort().values


def _some(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most `MAX_PICTURES` of them, evenly from first to last."""
    chosen = np.linspace(0, len(pictures) - 1, num=min(MAX_PICTURES, len(pictures))).astype(int)
    return np.asarray(pictures[chosen])
