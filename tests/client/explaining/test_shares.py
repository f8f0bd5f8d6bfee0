"""Which pixels a score is the mean of, and what each stage adds there."""

from __future__ import annotations

import numpy as np
import pytest

from client.explaining.shares import contributions, maximum_of, score_pixels
from model_repository.distance_fusion.map_fusion import Fusion, fuse_distances, image_scores


def test_by_hand() -> None:
    """A map of 2 x 2 pixels, whose score is the mean of its two highest: 8 and 4."""
    stages = np.array([[[1, 0], [2, 1]], [[5, 1], [1, 0]], [[2, 1], [1, 0]]], np.float32)
    anomaly_map = stages.sum(axis=0)  # [[8, 2], [4, 1]]
    pixels = score_pixels(anomaly_map, 6.0)
    assert sorted(pixels.tolist()) == [0, 2]
    assert contributions(stages, anomaly_map, pixels) == (1.5, 3.0, 1.5)
    assert maximum_of(anomaly_map, (200, 100)) == (50, 25, 8.0)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_as_many_pixels_as_the_calibration_says_are_found(share: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    size, weights = 128, (0.4, 1.6, 1.0)
    distances = [generator.gamma(1, size=(1, size // s, size // s)).astype(np.float32) for s in (4, 8, 16)]

    def fused(stage_weights: tuple[float, float, float]) -> np.ndarray:
        return fuse_distances(
            distances,
            Fusion(image_size=size, smoothing_sigma=4.0, pool_size=5, stage_weights=stage_weights),
        )[0]

    anomaly_map = fused(weights)
    stages = np.stack([fused((weights[0], 0, 0)), fused((0, weights[1], 0)), fused((0, 0, weights[2]))])
    score = float(image_scores(anomaly_map[None], share)[0])
    pixels = score_pixels(anomaly_map, score)
    assert len(pixels) == pytest.approx(max(1, round(share * size**2)), abs=1)
    assert sum(contributions(stages, anomaly_map, pixels)) == pytest.approx(score, rel=1e-5)


def test_what_does_not_add_up_is_refused() -> None:
    anomaly_map = np.array([[4, 1], [1, 0]], np.float32)
    with pytest.raises(ValueError, match=r"the score 9\.0 is no mean of the highest values"):
        score_pixels(anomaly_map, 9.0)
    stages = np.stack([anomaly_map, anomaly_map, anomaly_map])
    with pytest.raises(ValueError, match="do not sum to the anomaly map"):
        contributions(stages, anomaly_map, np.array([0]))


def test_a_map_of_nothing() -> None:
    nothing = np.zeros((4, 4), np.float32)
    pixels = score_pixels(nothing, 0.0)
    assert contributions(np.zeros((3, 4, 4), np.float32), nothing, pixels) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("cell", "size", "expected"),
    [
        ((0, 0), (4, 4), (0, 0)),
        ((3, 3), (4, 4), (3, 3)),
        ((3, 0), (8, 2), (1, 1)),
        ((1, 2), (1000, 400), (625, 150)),
    ],
)
def test_the_maximum_lies_in_the_original(
    cell: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    anomaly_map = np.zeros((4, 4), np.float32)
    anomaly_map[cell] = 2.0
    assert maximum_of(anomaly_map, size) == (*expected, 2.0)
