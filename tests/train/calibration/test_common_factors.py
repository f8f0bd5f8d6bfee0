"""What places have in common: found beside SVD, subtracted, and what is left measured anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from train.calibration import common_factors
from train.calibration.common_factors import fit_common_factors, set_factors
from train.calibration.residuals import KnownImages, fit_residuals
from train.config import fit_config
from train.method.residuals import CommonFactors
from train.method.student import Student, build_teacher_and_student

Images = NDArray[np.uint8]
CPU = torch.device("cpu")
SIZES = [(4, 2), (2, 3), (1, 4)]  # h * w and C of three stages


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def residuals_of(n_images: int) -> list[torch.Tensor]:
    """Centred residuals [N, C, h, 1] a stage that rise and fall together along two directions, and noise."""
    stages = []
    scores = normal(n_images, 2, seed=9) * torch.tensor([5.0, 3.0])
    for seed, (places, channels) in enumerate(SIZES):
        together = torch.einsum("nk,kcp->ncp", scores, normal(2, channels, places, seed=seed))
        stage = together + 0.1 * normal(n_images, channels, places, seed=10 + seed)
        stages.append((stage - stage.mean(dim=0))[..., None])
    return stages


def flat_loadings(common: CommonFactors) -> torch.Tensor:
    """[K, all places and channels of all stages]."""
    return torch.cat(common.loadings).T


def n_used(common: CommonFactors) -> int:
    return int(flat_loadings(common).any(dim=1).sum())


def test_factors_are_the_main_components_of_all_stages_together() -> None:
    common, stages = CommonFactors(2, SIZES), residuals_of(40)
    set_factors(common, [[stage[:15] for stage in stages], [stage[15:] for stage in stages]])
    flat = torch.cat([stage.flatten(1) for stage in stages], dim=1)  # [N, all]
    found = flat_loadings(common)
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    main = torch.linalg.svd(flat, full_matrices=False)[2][:2]
    torch.testing.assert_close(found.T @ found, main.T @ main, atol=1e-4, rtol=0)
    left = common(stages)
    assert [one.shape for one in left] == [one.shape for one in stages]
    expected = flat - flat @ main.T @ main
    torch.testing.assert_close(
        torch.cat([stage.flatten(1) for stage in left], dim=1), expected, atol=1e-3, rtol=0
    )
    # Only the noise is left.
    assert float(torch.cat([one.flatten() for one in left]).std()) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize(("n_images", "expected"), [(9, 0), (10, 1), (29, 2), (200, 4)])
def test_there_is_at_most_one_factor_for_ten_images(n_images: int, expected: int) -> None:
    common = CommonFactors(4, SIZES)
    set_factors(common, [residuals_of(n_images)])
    assert n_used(common) == expected


def test_copies_of_one_picture_have_no_factor_that_is_not_finite() -> None:
    common = CommonFactors(4, SIZES)
    set_factors(common, [[torch.zeros(50, channels, places, 1) for places, channels in SIZES]])
    assert n_used(common) == 0
    one = [normal(1, channels, places, 1).expand(50, -1, -1, -1) for places, channels in SIZES]
    set_factors(common, [one])
    assert n_used(common) == 1


OPTIONS = {"teacher": "test_resnet", "student": "test_efficientnet", "weights": "random", "image_size": 64}


def fitted(images: Images, features: list[torch.Tensor], *, factors: int, flipped: bool = False) -> Student:
    """A student whose statistics are fitted on 40 images and chosen on the next 20, as they are or flipped."""
    config = fit_config("edge", {**OPTIONS, "common_factors": factors})
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    student.eval().requires_grad_(False)
    student.set_teacher_statistics(
        [f[:40].mean(dim=(0, 2, 3)) for f in features], [f[:40].std(dim=(0, 2, 3)) for f in features]
    )
    arrays = [feature.permute(0, 2, 3, 1).numpy() for feature in features]
    train = KnownImages(images[:40], [stage[:40] for stage in arrays])
    held_out = KnownImages(images[40:60], [stage[40:60] for stage in arrays])
    fit_residuals(student, train, held_out=held_out, device=CPU)
    if flipped:
        held_out = KnownImages(images[40:60, ::-1].copy(), [stage[40:60, ::-1].copy() for stage in arrays])
    fit_common_factors(student, train, held_out=held_out, device=CPU)
    return student


@pytest.fixture(scope="module")
def pictures() -> Images:
    """80 pictures of one scene under light that differs."""
    rng = np.random.default_rng(0)
    scene = rng.uniform(60, 140, (64, 64, 3))
    light = rng.uniform(0.7, 1.5, (80, 1, 1, 1))
    return np.asarray((scene * light + rng.normal(0, 4, (80, 64, 64, 3))).clip(0, 255).astype(np.uint8))


def test_light_that_good_pictures_have_is_told_from_a_defect(pictures: Images) -> None:
    defective = pictures[60:].copy()
    defective[:, 20:36, 20:36] = (0.8 * defective[:, 20:36, 20:36]).astype(np.uint8)
    teacher = build_teacher_and_student(fit_config("edge", OPTIONS), weights_dir=None)[0]
    with torch.inference_mode():
        features, theirs = teacher(torch.from_numpy(pictures)), teacher(torch.from_numpy(defective))
        apart = []
        for factors in (0, 4):
            student = fitted(pictures, features, factors=factors)
            good, bad = (
                student.distances(torch.from_numpy(images), seen, scale=2.0)[0]
                for images, seen in ((pictures[60:], [f[60:] for f in features]), (defective, theirs))
            )
            assert float(good.mean()) == pytest.approx(1, abs=0.35)
            rise = (bad - good)[:, 6:8, 6:8].mean()
            apart.append(float(rise / good[:, 6:8, 6:8].std()))
    assert apart[1] > 1.1 * apart[0]


def test_held_out_pictures_decide_no_factor(pictures: Images) -> None:
    teacher = build_teacher_and_student(fit_config("edge", OPTIONS), weights_dir=None)[0]
    with torch.inference_mode():
        features = teacher(torch.from_numpy(pictures))
    once, again = (fitted(pictures, features, factors=4, flipped=flipped) for flipped in (False, True))
    assert once.residuals is not None
    assert again.residuals is not None
    assert once.residuals.common is not None
    assert again.residuals.common is not None
    for loadings, others in zip(once.residuals.common.loadings, again.residuals.common.loadings, strict=True):
        torch.testing.assert_close(loadings, others, rtol=0, atol=0)
    assert n_used(once.residuals.common) == 4
    # They choose how far covariances are shrunk.
    whitening = [
        torch.cat([stage.whitening.flatten() for stage in one]) for one in (once.residuals, again.residuals)
    ]
    assert not torch.equal(*whitening)


def test_of_many_images_some_decide_the_factors_and_the_rest_take_no_memory(
    pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = build_teacher_and_student(fit_config("edge", OPTIONS), weights_dir=None)[0]
    with torch.inference_mode():
        features = teacher(torch.from_numpy(pictures))
    numbers = sum(feature[0].numel() for feature in features)
    monkeypatch.setattr(common_factors, "MOST_NUMBERS", 12 * numbers)
    seen: list[list[list[torch.Tensor]]] = []

    def noted(common: CommonFactors, batches: list[list[torch.Tensor]]) -> None:
        seen.append(batches)
        set_factors(common, batches)

    monkeypatch.setattr(common_factors, "set_factors", noted)
    fitted(pictures, features, factors=4)
    (batches,) = seen
    assert sum(len(batch[0]) for batch in batches) == 10  # every fourth of 40: at most 12
    assert sum(stage.untyped_storage().nbytes() for batch in batches for stage in batch) == 4 * 10 * numbers
