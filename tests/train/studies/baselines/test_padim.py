"""PaDiM against scipy, a hand-computed case, and a defect at a known place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis

from train.studies.baselines.padim import (
    N_CHANNELS,
    REGULARISATION,
    embed,
    fit_gaussians,
    fit_padim,
    mahalanobis,
    padim_maps,
)

CPU = torch.device("cpu")
SIDES, CHANNELS = (8, 4, 2), (3, 5, 4)


def random_stages(n_images: int, *, seed: int, channels: tuple[int, ...] = CHANNELS) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(n_images, side, side, n)).astype(np.float32)
        for side, n in zip(SIDES, channels, strict=True)
    ]


def test_mahalanobis_by_hand() -> None:
    # Variances 2.01 and 0.01 (regularised), no correlation: sqrt(3^2 / 2.01 + 0.2^2 / 0.01).
    vectors = torch.tensor([[[-1.0, 5.0], [1.0, 5.0]]], dtype=torch.float64)
    mean, whitening = fit_gaussians(vectors)
    distance = mahalanobis(torch.tensor([[[3.0, 5.2]]], dtype=torch.float64), mean=mean, whitening=whitening)
    assert distance.item() == pytest.approx(np.sqrt(9 / 2.01 + 0.04 / 0.01))


def test_mahalanobis_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3, 20, 4)) @ generator.normal(size=(4, 4)) + 2
    asked = generator.normal(size=(3, 5, 4))
    mean, whitening = fit_gaussians(torch.from_numpy(vectors))
    distance = mahalanobis(torch.from_numpy(asked), mean=mean, whitening=whitening)
    assert distance.shape == (3, 5)
    for position in range(3):
        covariance = np.cov(vectors[position], rowvar=False) + REGULARISATION * np.eye(4)
        inverse = np.linalg.inv(covariance)
        expected = [scipy_mahalanobis(x, vectors[position].mean(axis=0), inverse) for x in asked[position]]
        np.testing.assert_allclose(distance[position], expected, rtol=1e-9)


def test_a_fine_position_takes_the_features_of_the_coarse_one_it_lies_in() -> None:
    stages = random_stages(2, seed=1)
    channels = np.array([0, 2, 3, 8, 11])  # of 3 + 5 + 4
    embedded = embed(stages, channels).reshape(2, 8, 8, 5)
    expected = [stages[0][1, 6, 3, 0], stages[0][1, 6, 3, 2], stages[1][1, 3, 1, 0], stages[2][1, 1, 0, 0],
                stages[2][1, 1, 0, 3]]  # fmt: skip
    np.testing.assert_array_equal(embedded[1, 6, 3], expected)


def test_the_map_is_largest_where_a_feature_is_foreign() -> None:
    model = fit_padim(random_stages(40, seed=2), seed=0, device=CPU)
    assert model.mean.shape == (64, 12)
    assert model.whitening.shape == (64, 12, 12)
    test = random_stages(3, seed=3)
    test[0][1, 5, 2] += 9
    maps = padim_maps(model, test)
    assert maps.shape == (3, 8, 8)
    assert maps.dtype == np.float32
    assert np.unravel_index(maps.argmax(), maps.shape) == (1, 5, 2)


def test_channels_are_drawn_by_the_seed_alone() -> None:
    stages = random_stages(3, seed=4, channels=(60, 50, 40))
    drawn = [fit_padim(stages, seed=seed, device=CPU).channels for seed in (0, 0, 1)]
    assert len(set(drawn[0])) == N_CHANNELS
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
