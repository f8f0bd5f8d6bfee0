"""Statistics of the distance mahalanobis: fitted beside numpy and SciPy, chosen on held-out images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from train.calibration.residuals import (
    KnownImages,
    Moments,
    choose_statistics,
    fit_residuals,
    negative_log_likelihood,
)
from train.config import fit_config
from train.method.residuals import StageResiduals
from train.method.student import build_teacher_and_student

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments_of(teacher: torch.Tensor, student: torch.Tensor) -> Moments:
    moments = Moments(teacher.shape[0], teacher.shape[1])
    moments.add(teacher[..., :3], student[..., :3])
    moments.add(teacher[..., 3:], student[..., 3:])
    return moments


def test_residuals_of_any_gain_follow_from_the_moments() -> None:
    teacher, student = normal(2, 3, 10), normal(2, 3, 10, seed=1)  # [P, C, N]
    usual = moments_of(teacher, student).residuals(0.25)
    for place in range(2):
        residual = (teacher[place] - 0.25 * student[place]).numpy()
        np.testing.assert_allclose(usual.mean[place, :, 0], residual.mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(usual.covariance[place], np.cov(residual, bias=True), rtol=1e-5)


def test_shrinking_goes_towards_the_mean_covariance_of_all_places() -> None:
    teacher = normal(4, 3, 20)
    usual = moments_of(teacher, torch.zeros_like(teacher)).residuals(0)
    pooled = usual.covariance.mean(dim=0)
    floor = 0.01 * pooled.diagonal().mean() * torch.eye(3)
    for shrinkage in (0.0, 0.4, 1.0):
        cholesky = usual.cholesky(shrinkage)
        expected = (1 - shrinkage) * usual.covariance + shrinkage * pooled + floor
        torch.testing.assert_close(cholesky @ cholesky.mT, expected)


def test_the_likelihood_is_scipys() -> None:
    residuals, spread = normal(2, 3, 7).double(), normal(2, 3, 3, seed=1).double()
    covariance = spread @ spread.mT + torch.eye(3)
    found = negative_log_likelihood(residuals, torch.linalg.cholesky(covariance))
    densities = [
        multivariate_normal(cov=covariance[place].numpy()).logpdf(residuals[place].numpy().T)
        for place in range(2)
    ]
    expected = -np.mean(densities) / 3 - np.log(2 * np.pi) / 2
    assert found == pytest.approx(expected)


def chosen(teacher: torch.Tensor, student: torch.Tensor, *, n_train: int) -> StageResiduals:
    """A stage of 2 x 2 places, fitted on the first images of [P, C, N] and chosen on the rest."""
    stage = StageResiduals(channels=teacher.shape[1], shape=(2, 2), neighbourhood=1)
    moments = moments_of(teacher[..., :n_train], student[..., :n_train])
    choose_statistics(stage, moments, theirs=teacher[..., n_train:], ours=student[..., n_train:])
    return stage


def test_a_student_is_heeded_as_far_as_its_word_is_worth() -> None:
    teacher = normal(4, 3, 600)
    assert float(chosen(teacher, teacher + 0.1 * normal(4, 3, 600, seed=1), n_train=500).gain) == 1
    assert float(chosen(teacher, normal(4, 3, 600, seed=1), n_train=500).gain) == 0.25  # the least
    half_right = teacher + normal(4, 3, 600, seed=1)
    assert float(chosen(teacher, half_right, n_train=500).gain) == 0.5


def test_places_that_are_alike_share_their_statistics_and_others_keep_their_own() -> None:
    def spread_over_places(stage: StageResiduals) -> float:
        return float((stage.whitening - stage.whitening.mean(dim=0)).norm() / stage.whitening.norm())

    alike, none = normal(4, 3, 60), torch.zeros(4, 3, 60)
    assert spread_over_places(chosen(alike, none, n_train=10)) < 0.05
    unlike = alike * torch.tensor([0.2, 1, 3, 9]).view(4, 1, 1)
    assert spread_over_places(chosen(unlike, none, n_train=50)) > 0.5


def test_fitted_distances_of_good_images_are_about_1_and_no_label_is_needed() -> None:
    config = fit_config(
        "edge",
        {"teacher": "test_resnet", "student": "test_efficientnet", "weights": "random", "image_size": 64},
    )
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    student.eval().requires_grad_(False)
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        features = teacher(torch.from_numpy(images))
    student.set_teacher_statistics(
        [f.mean(dim=(0, 2, 3)) for f in features], [f.std(dim=(0, 2, 3)) for f in features]
    )
    arrays = [feature.permute(0, 2, 3, 1).numpy() for feature in features]
    train = KnownImages(images[:30], [stage[:30] for stage in arrays])
    held_out = KnownImages(images[30:], [stage[30:] for stage in arrays])
    fit_residuals(student, train, held_out=held_out, device=CPU)
    with torch.inference_mode():
        distances = student.distances(torch.from_numpy(images[30:]), [f[30:] for f in features], scale=2.0)
    for side, stage in zip((16, 8, 4), distances, strict=True):
        assert stage.shape == (10, side, side)
        assert float(stage.mean()) == pytest.approx(1, abs=0.35)


def test_copies_of_one_image_do_not_blow_up_their_rounding() -> None:
    one = normal(4, 3, 1).expand(4, 3, 60) + 1e-6 * normal(4, 3, 60, seed=1)
    stage = chosen(one, torch.zeros(4, 3, 60), n_train=50)
    # Noise of a millionth stays below a thousandth of what a difference as large as a feature's usual one gives.
    assert float(stage.whitening.abs().max()) <= 101
