"""Large maps, fused window by window: the same as in one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model_repository.distance_fusion import fusion_matrices, map_fusion
from model_repository.distance_fusion.fusion_matrices import reach, windows
from model_repository.distance_fusion.map_fusion import STRIDES, Fusion, fuse_distances, judge, judge_scores
from model_repository.image_size import NATIVE
from tests.model_repository.test_map_fusion import CALIBRATION

FUSION = Fusion(image_size=NATIVE, smoothing_sigma=2.0, pool_size=5, stage_weights=(0.2, 0.7, 2.1))


def distances_of(height: int, width: int, *, n_images: int = 1) -> list[NDArray[np.float64]]:
    generator = np.random.default_rng(0)
    return [generator.random((n_images, height // stride, width // stride)) for stride in STRIDES]


@pytest.mark.parametrize(
    ("height", "width", "sigma", "window"),
    [(1056, 608, 2.0, 5), (1056, 608, 4.0, 1), (64, 1600, 2.0, 5), (1600, 96, 0.0, 1), (1024, 1024, 30.0, 9)],
)
def test_windows_join_without_a_seam(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, sigma: float, window: int
) -> None:
    fusion = replace(FUSION, smoothing_sigma=sigma, pool_size=window)
    distances: list[NDArray[np.float64]] = distances_of(height, width)
    joined = fuse_distances(distances, fusion)  # type: ignore[arg-type]
    monkeypatch.setattr(fusion_matrices, "WINDOW", 10**6)
    whole = fuse_distances(distances, fusion)  # type: ignore[arg-type]
    assert joined.dtype == np.float64
    assert joined.shape == (1, height, width)
    # The matrices hold float32 numbers, whose last bit depends on where a window begins.
    np.testing.assert_allclose(joined, whole, rtol=2e-6)
    assert len(list(windows(max(height, width), sigma=sigma, window=window))) == 1
    monkeypatch.undo()
    n_windows = [len(list(windows(side, sigma=sigma, window=window))) for side in (height, width)]
    assert max(n_windows) > 1, "nothing was joined"


def test_windows_cover_a_side_once_and_see_a_margin_around() -> None:
    seen = list(windows(2464, sigma=2.0, window=5))
    assert [window.start for window in seen[1:]] == [window.stop for window in seen[:-1]]
    assert (seen[0].start, seen[-1].stop) == (0, 2464)
    margin = reach(2.0, 5)
    for window in seen:
        assert window.seen_start == max(0, window.start - margin)
        assert window.seen_stop == min(2464, window.stop + margin)
        assert window.seen_start % STRIDES[-1] == window.seen_stop % STRIDES[-1] == 0
        assert window.seen <= fusion_matrices.WINDOW


def test_small_maps_are_fused_in_one_piece() -> None:
    assert len(list(windows(512, sigma=4.0, window=5))) == 1


def test_the_map_of_a_picture_has_its_size_and_its_score_counts_pixels() -> None:
    calibration = replace(
        CALIBRATION,
        image_size=NATIVE,
        smoothing_sigma=0.0,
        pool_size=1,
        stage_weights=(1.0, 0.0, 0.0),
        score_pixels=16,
    )
    scores = []
    for height, width in ((64, 96), (640, 1024)):
        distances = [stage.astype(np.float32) for stage in distances_of(height, width, n_images=2)]
        distances[0][:] = 0.5
        distances[0][1, 3:9, 3:9] = 2.0
        verdict = judge(fuse_distances(distances, calibration.fusion), calibration)
        assert verdict.anomaly_map.shape == (2, height, width)
        np.testing.assert_array_equal(judge_scores(distances, calibration).pred_score, verdict.pred_score)
        scores.append(verdict.pred_score[:, 0])
    np.testing.assert_allclose(scores, [[0.5, 2.0]] * 2)  # whatever the size of the picture


def test_distances_that_do_not_belong_together_are_refused() -> None:
    distances = distances_of(64, 96)
    distances[1] = distances[1][:, :-1]
    with pytest.raises(ValueError, match=r"expected .* of 64x96-pixel images"):
        map_fusion.fuse_distances(distances, FUSION)  # type: ignore[arg-type]
