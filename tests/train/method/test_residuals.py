"""The distance mahalanobis, beside plain loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from model_repository.image_size import NATIVE
from train.config import fit_config
from train.errors import ConfigError
from train.method.residuals import Residuals, StageResiduals
from train.method.student import student_without_weights


def random_features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_without_statistics_the_distance_is_the_root_mean_square_of_the_difference() -> None:
    stage = StageResiduals(channels=2, shape=(1, 1), neighbourhood=1)
    teacher = torch.tensor([[[[3.0]], [[4.0]]], [[[1.0]], [[1.0]]]])  # [B, C, 1, 1] of two images
    distance = stage(torch.zeros(2, 2, 1, 1), teacher)
    torch.testing.assert_close(distance, torch.tensor([[[12.5**0.5]], [[1.0]]]))


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (4, 1)])
def test_the_distance_is_scipys_mahalanobis_distance_at_each_place(shape: tuple[int, int]) -> None:
    stage = StageResiduals(channels=3, shape=shape, neighbourhood=1)
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(4, 3, 3))
    covariance = spread @ spread.transpose(0, 2, 1) + 0.1 * np.eye(3)
    stage.whitening.copy_(torch.from_numpy(np.linalg.inv(np.linalg.cholesky(covariance)).transpose(0, 2, 1)))
    stage.place_mean.copy_(random_features(3, *shape, seed=1))
    stage.set_channels(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0]))
    stage.gain.fill_(0.25)
    teacher, student = random_features(5, 3, *shape, seed=2), random_features(5, 3, *shape, seed=3)
    found = stage(student, teacher).numpy()
    assert found.shape == (5, *shape)
    for image in range(5):
        for place in range(4):
            row, column = divmod(place, shape[1])
            theirs = (teacher[image, :, row, column].numpy() - [1, 2, 3]) / [0.5, 1, 2]
            residual = theirs - 0.25 * student[image, :, row, column].numpy()
            mean = stage.place_mean[:, row, column].numpy()
            expected = mahalanobis(residual, mean, np.linalg.inv(covariance[place])) / 3**0.5
            assert found[image, row, column] == pytest.approx(expected, rel=1e-4)


def test_a_neighbourhood_is_the_mean_of_the_positions_that_exist() -> None:
    stage = StageResiduals(channels=1, shape=(3, 3), neighbourhood=3)
    feature = torch.arange(9.0).reshape(1, 1, 3, 3)
    averaged = stage.averaged(feature)[0, 0]
    assert averaged[1, 1] == 4  # all nine
    assert averaged[0, 0] == pytest.approx((0 + 1 + 3 + 4) / 4)  # a corner has four
    assert averaged[0, 1] == pytest.approx((0 + 1 + 2 + 3 + 4 + 5) / 6)


def test_the_loss_is_the_share_of_the_variance_that_is_not_foretold() -> None:
    residuals = Residuals(teacher_channels=[2, 3, 4], image_size=32, neighbourhoods=(3, 3, 1))
    features = [5 + 2 * random_features(8, c, h, h) for c, h in ((2, 8), (3, 4), (4, 2))]
    for stage, feature in zip(residuals, features, strict=True):
        stage.set_channels(feature.mean(dim=(0, 2, 3)), feature.std(dim=(0, 2, 3), correction=0))
    nothing = [torch.zeros_like(feature) for feature in features]
    everything = [stage.standardized(feature) for stage, feature in zip(residuals, features, strict=True)]
    assert float(residuals.loss(nothing, features)) == pytest.approx(3, rel=1e-4)  # 1 a stage
    assert float(residuals.loss(everything, features)) == 0
    half = [0.5 * feature for feature in everything]
    assert float(residuals.loss(half, features)) == pytest.approx(3 / 4, rel=1e-4)


def test_a_channel_that_is_constant_on_good_images_stays_finite() -> None:
    stage = StageResiduals(channels=2, shape=(1, 1), neighbourhood=1)
    stage.set_channels(torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert stage(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)).isfinite().all()


def test_statistics_that_would_fill_the_memory_are_refused() -> None:
    config = fit_config("edge", {"teacher": "wide_resnet50_2", "image_size": 256})
    with pytest.raises(
        ConfigError, match=r"256, 512, 1024 channels at 256 px takes 3,072 MiB .*--distance cosine"
    ):
        student_without_weights(config)


def test_an_image_is_judged_alike_alone_and_in_a_batch() -> None:
    stage = StageResiduals(channels=4, shape=(4, 4), neighbourhood=3)
    stage.whitening.copy_(random_features(16, 4, 4))
    teacher, student = random_features(3, 4, 4, 4, seed=1), random_features(3, 4, 4, 4, seed=2)
    alone = [stage(student[i : i + 1], teacher[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(stage(student, teacher), torch.cat(alone))


def with_factors() -> tuple[Residuals, list[torch.Tensor], list[torch.Tensor]]:
    """Residuals of 3 factors that are no statistics of anything, and features of 5 images of both networks."""
    residuals = Residuals(
        teacher_channels=[2, 3, 4], image_size=32, neighbourhoods=(3, 3, 1), common_factors=3
    )
    assert residuals.common is not None
    for stage, loadings in zip(residuals, residuals.common.loadings, strict=True):
        stage.place_mean.copy_(random_features(*stage.place_mean.shape, seed=7))
        stage.whitening.copy_(random_features(*stage.whitening.shape, seed=8))
        loadings.copy_(0.1 * random_features(*loadings.shape, seed=9))
    residuals.common.whiten(residuals)
    shapes = [(5, c, h, h) for c, h in ((2, 8), (3, 4), (4, 2))]
    teacher, student = ([random_features(*shape, seed=seed) for shape in shapes] for seed in (1, 2))
    return residuals, teacher, student


def test_what_all_places_have_in_common_is_subtracted_before_a_place_is_measured() -> None:
    residuals, teacher, student = with_factors()
    assert residuals.common is not None
    centred = [
        (stage.residual(ours, theirs) - stage.place_mean).numpy()
        for stage, ours, theirs in zip(residuals, student, teacher, strict=True)
    ]
    found = residuals(student, teacher)
    loadings = [
        one.numpy().reshape(c, -1, 3) for one, c in zip(residuals.common.loadings, (2, 3, 4), strict=True)
    ]
    for image in range(5):
        by_place = [stage[image].reshape(len(stage[image]), -1).T for stage in centred]  # [h * w, C]
        scores = sum(
            np.einsum("cpk,pc->k", factor, stage) for factor, stage in zip(loadings, by_place, strict=True)
        )
        for stage, factor, differences, distance in zip(residuals, loadings, by_place, found, strict=True):
            left = differences - np.einsum("k,cpk->pc", scores, factor)
            whitened = np.einsum("pc,pcd->pd", left, stage.whitening.numpy())
            expected = np.sqrt((whitened**2).mean(axis=1)).reshape(distance.shape[1:])
            np.testing.assert_allclose(distance[image].numpy(), expected, rtol=1e-4, atol=1e-5)
    alone = residuals([one[2:3] for one in student], [one[2:3] for one in teacher])
    for distance, of_one in zip(found, alone, strict=True):
        torch.testing.assert_close(distance[2:3], of_one)


def test_common_factors_that_take_too_much_memory_are_refused() -> None:
    student_without_weights(fit_config("edge", {"image_size": 704}))
    with pytest.raises(
        ConfigError,
        match=r"256 common factors at 704 px take 2,6\d\d MiB; expected at most 256: take fewer --common-factors\.",
    ):
        student_without_weights(fit_config("edge", {"image_size": 704, "common_factors": 256}))


def test_factors_of_zeros_change_nothing() -> None:
    residuals, teacher, student = with_factors()
    assert residuals.common is not None
    for loadings in residuals.common.loadings:
        loadings.zero_()
    residuals.common.whiten(residuals)
    expected = [stage(ours, theirs) for stage, ours, theirs in zip(residuals, student, teacher, strict=True)]
    for found, one in zip(residuals(student, teacher), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=0, atol=0)
    shared = Residuals(
        teacher_channels=[2, 3, 4], image_size=NATIVE, neighbourhoods=(3, 3, 1), common_factors=3
    )
    assert shared.common is None
