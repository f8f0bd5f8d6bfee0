"""The fusion against torch's and SciPy's own filters, and the verdict by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    fusion_matrix,
    gaussian_matrix,
    image_scores,
    judge,
    judge_scores,
    pooling_matrix,
    remove_background,
    upsampling_matrix,
)
from model_repository.image_size import ImageSize, height_width, stage_shape

CALIBRATION = Calibration(
    release_id=2**62 + 1,
    category="pill",
    image_size=256,
    smoothing_sigma=4.0,
    pool_size=5,
    stage_weights=(1.0, 1.0, 1.0),
    image_threshold=0.5,
    pixel_threshold=0.25,
)


def random_distances(image_size: ImageSize, batch: int = 2) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    shapes = (stage_shape(image_size, stride) for stride in (4, 8, 16))
    return [rng.uniform(0, 4, (batch, *shape)).astype(np.float32) for shape in shapes]


def fuse_with_filters(
    distances: list[NDArray[np.float32]],
    *,
    size: ImageSize,
    sigma: float,
    window: int,
    weights: tuple[float, ...],
) -> NDArray[np.float32]:
    """Section 3.4 as written: upsample, accumulate, blur, pool."""
    accumulated = sum(
        weight
        * F.interpolate(
            torch.from_numpy(distance)[:, None], size=height_width(size), mode="bilinear", align_corners=False
        )
        for distance, weight in zip(distances, weights, strict=True)
    )
    assert isinstance(accumulated, torch.Tensor)
    blurred = np.stack([ndimage.gaussian_filter(image, sigma) for image in accumulated[:, 0].numpy()])
    pooled = F.avg_pool2d(
        torch.from_numpy(blurred)[:, None], window, stride=1, padding=window // 2, count_include_pad=False
    )
    return pooled[:, 0].numpy()


@pytest.mark.parametrize(
    ("size", "sigma", "window", "weights"),
    [
        (256, 4.0, 5, (1.0, 1.0, 1.0)),
        (256, 4.0, 5, (0.2, 0.7, 2.1)),
        (128, 4.0, 5, (1.0, 1.0, 1.0)),
        (128, 6.0, 5, (0.1, 1.4, 1.5)),
        (64, 2.5, 3, (3.0, 0.0, 0.0)),
        ((64, 160), 2.5, 5, (0.2, 0.7, 2.1)),
        ((96, 32), 12.0, 7, (1.0, 1.0, 1.0)),
        (32, 12.0, 7, (1.0, 1.0, 1.0)),  # the kernel is wider than the image: mirrored more than once
    ],
)
def test_fusion_equals_the_filters_of_torch_and_scipy(
    size: ImageSize, sigma: float, window: int, weights: tuple[float, float, float]
) -> None:
    distances = random_distances(size)
    calibration = replace(
        CALIBRATION, image_size=size, smoothing_sigma=sigma, pool_size=window, stage_weights=weights
    )
    fused = fuse_distances(distances, calibration.fusion)
    expected = fuse_with_filters(distances, size=size, sigma=sigma, window=window, weights=weights)
    assert fused.shape == (2, *height_width(size))
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused, expected, atol=2e-5)


def test_without_smoothing_and_pooling_only_upsampling_is_left() -> None:
    distances = random_distances(64)
    calibration = replace(CALIBRATION, image_size=64, smoothing_sigma=0.0, pool_size=1)
    expected = sum(
        F.interpolate(torch.from_numpy(distance)[:, None], size=(64, 64), mode="bilinear")[:, 0].numpy()
        for distance in distances
    )
    np.testing.assert_allclose(fuse_distances(distances, calibration.fusion), expected, atol=1e-5)


@pytest.mark.parametrize(
    "matrix",
    [
        upsampling_matrix(16, 256),
        gaussian_matrix(128, 6.0),
        gaussian_matrix(128, 0),
        pooling_matrix(128, 5),
        fusion_matrix(64, target=256, sigma=4.0, window=5),
        fusion_matrix(8, target=128, sigma=4.0, window=5),
    ],
)
def test_rows_sum_to_one_so_that_a_flat_map_stays_flat(matrix: NDArray[np.float32]) -> None:
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert (matrix >= 0).all()


def test_upsampling_by_hand() -> None:
    # Centres of 4 pixels over 2: at -0.25 (clipped to 0), 0.25, 0.75 and 1.25 (clipped to 1).
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(upsampling_matrix(2, 4), np.array(expected, np.float32))


def test_pooling_by_hand() -> None:
    third, half = 1 / 3, 1 / 2
    expected = [[half, half, 0], [third, third, third], [0, half, half]]
    np.testing.assert_allclose(pooling_matrix(3, 3), expected, rtol=1e-6)


def test_verdict_by_hand() -> None:
    anomaly_map = np.array([[[0.1, 0.2], [0.3, 0.5]], [[0.0, 0.25], [0.75, 0.26]]], np.float32)
    verdict = judge(anomaly_map, CALIBRATION)
    np.testing.assert_array_equal(verdict.pred_score, np.float32([[0.5], [0.75]]))
    np.testing.assert_array_equal(verdict.pred_label, [[False], [True]])  # 0.5 does not exceed 0.5
    np.testing.assert_array_equal(
        verdict.pred_mask, [[[False, False], [True, True]], [[False, False], [True, True]]]
    )
    np.testing.assert_array_equal(verdict.threshold, np.float32([[0.5], [0.5]]))
    assert verdict.anomaly_map is anomaly_map
    assert [verdict.pred_score.dtype, verdict.threshold.dtype] == [np.float32, np.float32]
    assert [verdict.pred_label.dtype, verdict.pred_mask.dtype] == [np.bool_, np.bool_]


def test_threshold_override_changes_the_label_alone() -> None:
    anomaly_map = np.array([[[0.1, 0.3]], [[0.6, 0.2]]], np.float32)
    verdict = judge(anomaly_map, CALIBRATION, threshold=0.2)
    np.testing.assert_array_equal(verdict.pred_label, [[True], [True]])
    np.testing.assert_array_equal(verdict.threshold, np.float32([[0.2], [0.2]]))
    np.testing.assert_array_equal(verdict.pred_mask, judge(anomaly_map, CALIBRATION).pred_mask)
    assert not judge(anomaly_map, CALIBRATION, threshold=0.7).pred_label.any()


def test_a_score_equal_to_the_threshold_is_good_in_float32_too() -> None:
    score = np.float32(0.1)  # not the float64 0.1
    calibration = replace(CALIBRATION, image_threshold=float(score))
    assert not judge(np.full((1, 1, 1), score), calibration).pred_label.any()


def test_calibration_round_trip(tmp_path: Path) -> None:
    calibration = replace(CALIBRATION, stage_weights=(0.1, 1.2, 1.7), image_threshold=1 / 3)
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_json())
    assert Calibration.load(path) == calibration


def without(name: str) -> str:
    values = json.loads(CALIBRATION.to_json())
    del values[name]
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"release_id": 1', "delimiter"),
        ("[]", r"fields .*, found list"),
        (without("pool_size"), r"has the fields \["),
        (CALIBRATION.to_json().replace("{", '{"threshold": 1,', 1), r"has the fields \["),
    ],
)
def test_bad_calibration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration.from_json(text)


def test_a_calibration_from_before_background_removal_keeps_the_background() -> None:
    values = json.loads(CALIBRATION.to_json())
    del values["foreground"], values["foreground_id"]
    assert Calibration.from_json(json.dumps(values)) == CALIBRATION
    assert CALIBRATION.foreground == "none"


def test_the_background_counts_as_no_anomaly() -> None:
    anomaly_map = np.array([[[0.9, 0.4], [0.2, 0.1]]], np.float32)
    foreground = np.array([[[False, True], [True, False]]])
    masked = remove_background(anomaly_map, foreground)
    np.testing.assert_array_equal(masked, np.array([[[0, 0.4], [0.2, 0]]], np.float32))
    assert masked.dtype == np.float32
    assert judge(masked, CALIBRATION).pred_score == np.float32(0.4)
    assert anomaly_map[0, 0, 0] == np.float32(0.9)  # the caller's map stays


def test_without_a_mask_the_map_stays() -> None:
    anomaly_map = np.ones((1, 2, 2), np.float32)
    assert remove_background(anomaly_map, None) is anomaly_map


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 2, 2), (2, 2)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"foreground has shape .*; expected the anomaly map's, \[1, 2, 2\]"):
        remove_background(np.ones((1, 2, 2), np.float32), np.ones(shape, bool))


def test_the_score_is_the_mean_of_the_highest_share_or_the_maximum() -> None:
    maps = np.stack([np.arange(100.0), np.arange(100.0)[::-1]]).reshape(2, 10, 10).astype(np.float32)
    maps[1, 0, 0] = 1000  # of 99
    np.testing.assert_array_equal(image_scores(maps, 0), [99, 1000])
    np.testing.assert_array_equal(image_scores(maps, 0.004), [99, 1000])  # less than one pixel
    np.testing.assert_allclose(image_scores(maps, 0.03), [98, (1000 + 98 + 97) / 3])
    np.testing.assert_allclose(image_scores(maps, 1), maps.mean(axis=(1, 2)))
    judged = judge(maps, replace(CALIBRATION, score_share=0.03))
    np.testing.assert_allclose(judged.pred_score[:, 0], [98, (1000 + 98 + 97) / 3])


def test_a_calibration_of_before_scores_by_the_maximum() -> None:
    assert "score_share" not in json.loads(CALIBRATION.to_json())  # for a fusion of before
    assert Calibration.from_json(CALIBRATION.to_json()) == CALIBRATION
    shared = replace(CALIBRATION, score_share=0.01)
    assert Calibration.from_json(shared.to_json()) == shared


@pytest.mark.parametrize("share", [0.0, 0.01])
@pytest.mark.parametrize("masked", [False, True])
def test_scores_alone_are_those_of_the_maps(share: float, masked: bool) -> None:
    calibration = replace(CALIBRATION, score_share=share, image_threshold=2.0)
    distances = random_distances(256, batch=3)
    foreground = np.random.default_rng(1).random((3, 256, 256)) < 0.5 if masked else None
    with_maps = judge(
        remove_background(fuse_distances(distances, calibration.fusion), foreground), calibration, 1.9
    )
    alone = judge_scores(distances, calibration, foreground=foreground, threshold=1.9)
    np.testing.assert_array_equal(alone.pred_score, with_maps.pred_score)
    np.testing.assert_array_equal(alone.pred_label, with_maps.pred_label)
    np.testing.assert_array_equal(alone.threshold, with_maps.threshold)


def test_scores_alone_name_the_image_that_cannot_be_judged() -> None:
    distances = random_distances(256, batch=3)
    distances[1][2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="image 3 of 3 cannot be judged: its distance maps are not finite"):
        judge_scores(distances, CALIBRATION)
    distances = random_distances(256, batch=3)
    distances[0][1] = np.finfo(np.float32).max  # finite, and their sum is not
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=r"image 2 of 3.*anomaly map is not finite"),
    ):
        judge_scores(
            [distances[0], distances[0][:, ::2, ::2] * 1, distances[0][:, ::4, ::4] * 1], CALIBRATION
        )
    hidden = np.ones((3, 256, 256), bool)
    hidden[1] = False
    with pytest.raises(ValueError, match=r"image 2 of 3.*hides all of it"):
        judge_scores(random_distances(256, batch=3), CALIBRATION, foreground=hidden)
    with pytest.raises(ValueError, match="image threshold is nan"):
        judge_scores(random_distances(256), CALIBRATION, threshold=float("nan"))


def test_a_verdict_does_not_depend_on_its_batch() -> None:
    distances = random_distances(256, batch=8)
    together = fuse_distances(distances, CALIBRATION.fusion)
    alone = [
        fuse_distances([stage[[index]] for stage in distances], CALIBRATION.fusion) for index in range(8)
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=2e-6)
