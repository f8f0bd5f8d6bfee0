"""PatchCore: the coreset against brute force, the score by hand, a defect at a known place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist

from train.studies.baselines.patchcore import (
    N_NEIGHBOURS,
    fit_patchcore,
    greedy_coreset,
    local_patches,
    patchcore_maps,
    project,
    reweighted_score,
)

CPU = torch.device("cpu")


def random_stages(n_images: int, *, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(n_images, side, side, channels)).astype(np.float32)
        for side, channels in ((8, 3), (4, 5), (2, 4))
    ]


def brute_force_coreset(points: np.ndarray, *, first: int, n_selected: int) -> list[int]:
    distances = cdist(points, points)
    selected = [first]
    while len(selected) < n_selected:
        selected.append(int(distances[:, selected].min(axis=1).argmax()))
    return selected


@pytest.mark.parametrize("seed", range(3))
def test_coreset_is_the_greedy_k_center(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(60, 7)).astype(np.float32)
    selected = greedy_coreset(torch.from_numpy(points), n_selected=15, seed=seed).tolist()
    assert selected == brute_force_coreset(points, first=selected[0], n_selected=15)


def test_coreset_takes_no_point_twice() -> None:
    copies = torch.ones(6, 3)
    assert sorted(greedy_coreset(copies, n_selected=6, seed=0).tolist()) == list(range(6))


def test_projection_nearly_keeps_distances() -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 600)).astype(np.float32))
    projected = project(points, seed=0)
    assert projected.shape == (30, 128)
    ratio = torch.pdist(projected) / torch.pdist(points)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() < 0.1
    assert project(points[:, :128], seed=0).shape == (30, 128)
    assert (project(points[:, :100], seed=0) == points[:, :100]).all()


def test_patches_are_means_over_three_by_three_neighbours() -> None:
    stages = random_stages(2, seed=1)
    patches = local_patches(stages)
    assert patches.shape == (2, 4, 4, 9)
    # A mean over the neighbours that exist is the ratio of two sums over zero padding.
    inside = uniform_filter(np.ones((4, 4)), 3, mode="constant")
    for channel in range(5):
        expected = uniform_filter(stages[1][1, :, :, channel], 3, mode="constant") / inside
        np.testing.assert_allclose(patches[1, :, :, channel], expected, rtol=1e-4, atol=1e-5)
    # Every 3x3 window of stage 3's 2x2 grid is all of it.
    everywhere = np.broadcast_to(stages[2].mean(axis=(1, 2))[:, None, None], (2, 4, 4, 4))
    np.testing.assert_allclose(patches[..., 5:], everywhere, rtol=1e-4, atol=1e-5)


def test_score_by_hand() -> None:
    # On a line: the bank at 0, 1 and 3, the patch at -2. Its nearest is 0, distances are 2, 3 and 5.
    bank = torch.tensor([[0.0], [1.0], [3.0]])
    share = np.exp(2) / (np.exp(2) + np.exp(3) + np.exp(5))
    score = reweighted_score(torch.tensor([-2.0]), bank=bank, nearest=0)
    assert score == pytest.approx(2 * (1 - share), rel=1e-5)
    far = reweighted_score(torch.tensor([-1e4]), bank=bank, nearest=0)  # exp(1e4) is no float
    assert far == pytest.approx(1e4, rel=0.1)


def test_an_image_with_a_foreign_patch_scores_highest_and_its_map_shows_where() -> None:
    bank = fit_patchcore(random_stages(30, seed=2), seed=0, device=CPU, coreset_ratio=0.2)
    assert bank.shape == (96, 9)  # a fifth of 30 * 4 * 4
    test = random_stages(20, seed=3)  # more than one chunk
    test[1][18, 0, 3] += 9
    maps, scores = patchcore_maps(bank, test)
    assert maps.shape == (20, 4, 4)
    assert scores.argmax() == 18
    assert np.unravel_index(maps.argmax(), maps.shape) == (18, 0, 3)


def test_the_bank_holds_at_least_the_neighbours_of_a_score() -> None:
    assert len(fit_patchcore(random_stages(2, seed=4), seed=0, device=CPU)) == N_NEIGHBOURS
