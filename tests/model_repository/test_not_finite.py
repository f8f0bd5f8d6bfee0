"""What is not finite, of another size or hidden is an error that names the image, never a label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    finite_images,
    fuse_distances,
    judge,
    judge_scores,
    remove_background,
)

CALIBRATION = Calibration(
    release_id=7,
    category="pill",
    image_size=64,
    smoothing_sigma=4.0,
    pool_size=5,
    stage_weights=(1.0, 1.0, 1.0),
    image_threshold=0.5,
    pixel_threshold=0.25,
)
NOT_FINITE = [np.nan, np.inf, -np.inf]


def zeros(batch: int, image_size: int = 64) -> list[NDArray[np.float32]]:
    return [
        np.zeros((batch, image_size // stride, image_size // stride), np.float32) for stride in (4, 8, 16)
    ]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_one_distance_that_is_not_finite_stops_its_batch_and_names_the_image(
    value: float, stage: int
) -> None:
    distances = zeros(3)
    distances[stage][1, -1, -1] = value
    with pytest.raises(
        ValueError, match=r"^image 2 of 3 cannot be judged: its distance maps are not finite$"
    ):
        fuse_distances(distances, CALIBRATION.fusion)
    assert finite_images(distances).tolist() == [True, False, True]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_map_that_overflows_is_an_error_with_maps_and_without(sign: int) -> None:
    distances = zeros(3)
    distances[0][1] = sign * 3e38
    heavy = replace(CALIBRATION, stage_weights=(100.0, 1.0, 1.0))
    sentence = r"^image 2 of 3 cannot be judged: its anomaly map is not finite$"
    with np.errstate(over="ignore", invalid="ignore"):
        with pytest.raises(ValueError, match=sentence):
            judge(fuse_distances(distances, heavy.fusion), heavy)
        with pytest.raises(ValueError, match=sentence):
            judge_scores(distances, heavy)


def test_every_image_is_named() -> None:
    distances = zeros(4)
    distances[0][[0, 3]] = np.nan
    with pytest.raises(ValueError, match=r"^image 1, 4 of 4 cannot be judged"):
        fuse_distances(distances, CALIBRATION.fusion)


def test_finite_distances_whose_sum_is_not_are_no_label() -> None:
    with np.errstate(over="ignore"):
        anomaly_map = fuse_distances([stage + np.float32(3e38) for stage in zeros(1)], CALIBRATION.fusion)
    with pytest.raises(ValueError, match=r"^image 1 of 1 cannot be judged: its anomaly map is not finite$"):
        judge(anomaly_map, CALIBRATION)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_map_that_is_not_finite_is_no_label(value: float) -> None:
    anomaly_map = np.zeros((2, 64, 64), np.float32)
    anomaly_map[1, 5, 5] = value
    with pytest.raises(ValueError, match="image 2 of 2 cannot be judged: its anomaly map is not finite"):
        judge(anomaly_map, CALIBRATION)


@pytest.mark.parametrize("threshold", [*NOT_FINITE, 1e39, -1e39])
def test_a_threshold_that_no_score_can_exceed_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"image threshold is .*; expected a finite number"):
        judge(np.zeros((1, 64, 64), np.float32), CALIBRATION, threshold)


@pytest.mark.parametrize("image_size", [32, 128, 256])
def test_distances_of_another_image_size_are_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=r"distance maps are .*; expected .*\(4, 4\)\] of 64-pixel images"):
        fuse_distances(zeros(1, image_size), CALIBRATION.fusion)


def test_an_image_that_is_smaller_than_a_position_of_the_third_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"distance maps are .*\(0, 0\)\] of 8-pixel images"):
        fuse_distances(zeros(1, 8), replace(CALIBRATION, image_size=8).fusion)


def test_stages_that_are_swapped_or_missing_are_refused() -> None:
    first, second, third = zeros(1)
    for distances in ([third, second, first], [first, second], [first, second, third, third]):
        with pytest.raises(ValueError, match="distance maps are"):
            fuse_distances(distances, CALIBRATION.fusion)
    with pytest.raises(ValueError, match="distance maps are"):
        fuse_distances([first[:, :8], second, third], CALIBRATION.fusion)


def test_a_mask_that_hides_its_whole_image_is_refused() -> None:
    foreground = np.ones((2, 64, 64), bool)
    foreground[0] = False
    with pytest.raises(ValueError, match="image 1 of 2 cannot be judged: its foreground mask hides all"):
        remove_background(np.ones((2, 64, 64), np.float32), foreground)


BAD_VALUES: list[tuple[str, Any]] = [
    *((name, value) for name in ("image_threshold", "pixel_threshold") for value in (*NOT_FINITE, 1e39, "0.5")),
    *(("smoothing_sigma", value) for value in (np.nan, np.inf, -1.0, 1e6, None)),
    *(("image_size", value) for value in (0, -64, 64.0, 10**6, True, "64")),
    *(("pool_size", value) for value in (0, 5.0, 10**9)),
    *(("release_id", value) for value in (-1, 7.5, None)),
    *(
        ("stage_weights", value)
        for value in (
            (np.nan, 1.0, 1.0),
            (np.inf, 1.0, 1.0),
            (-1.0, 2.0, 2.0),
            (0.0, 0.0, 0.0),  # every map would be 0, and every part good
            (1.0, 1.0),
            (1.0, 1.0, 1.0, 1.0),
            (1.0, "1", 1.0),
            (10**400, 1.0, 1.0),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_calibration_that_no_verdict_can_rest_on_cannot_be_made(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^a calibration holds {name} .*, expected "):
        replace(CALIBRATION, **{name: value})


def test_every_fault_of_a_calibration_is_named() -> None:
    with pytest.raises(ValueError, match=r"image_threshold nan, expected .*; stage_weights \[0, 0, 0\]"):
        replace(CALIBRATION, image_threshold=np.nan, stage_weights=(0, 0, 0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("image_threshold", "NaN"),
        ("image_threshold", "Infinity"),
        ("pixel_threshold", "1e400"),
        ("image_size", "null"),
        ("stage_weights", "null"),
        ("stage_weights", '"111"'),
        ("stage_weights", "[1, [1], 1]"),
        ("stage_weights", '{"1": 1, "2": 1, "3": 1}'),
        ("smoothing_sigma", "1e6"),
    ],
)
def test_a_calibration_file_with_such_a_value_is_refused(name: str, text: str, tmp_path: Path) -> None:
    values = json.loads(CALIBRATION.to_json())
    values[name] = "HERE"
    path = tmp_path / "7.json"
    path.write_text(json.dumps(values).replace('"HERE"', text))
    with pytest.raises(ValueError, match=f"^a calibration holds .*{name}"):
        Calibration.load(path)
