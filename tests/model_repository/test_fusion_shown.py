"""What is filled up beside a picture, or repeats its edge where it was aligned, counts nowhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_repository.distance_fusion import fusion_regions, fusion_shown, map_fusion, verdict_metrics
from model_repository.distance_fusion.fusion_calibration import CODE_FILES, fusion_code_id
from model_repository.distance_fusion.fusion_shown import (
    boxes_of_text,
    hide_beside,
    shown_pixels,
    text_of_boxes,
    within_picture,
)
from model_repository.distance_fusion.map_fusion import Calibration, release_id_of
from tests.model_repository import server_stub
from tests.model_repository.server_stub import Request, TritonError
from tests.model_repository.test_fusion_regions import CALIBRATION

PICTURE_ONLY = replace(CALIBRATION, picture_only=True, smoothing_sigma=2.0, stage_weights=(1.0, 1.0, 1.0))
BOX = np.array([[0, 12, 64, 52]])


def motion(degrees: float, across: float, down: float) -> NDArray[np.float32]:
    """[2, 3]: a turn about the upper left pixel, then a shift."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, across], [sin, cos, down]], np.float32)


def test_a_box_shows_its_pixels_and_the_whole_map_needs_no_mask() -> None:
    shown = shown_pixels(np.array([[0, 12, 64, 52], [3, 0, 5, 64]]), None, (64, 64), 2)
    assert shown is not None
    expected = np.zeros((2, 64, 64), bool)
    expected[0, :, 12:52] = expected[1, 3:5] = True
    np.testing.assert_array_equal(shown, expected)
    assert shown_pixels(np.array([[0, 0, 64, 48]]), None, (64, 48), 1) is None
    assert shown_pixels(None, None, (64, 48), 3) is None


@pytest.mark.parametrize("boxes", [None, BOX])
def test_an_aligned_picture_shows_what_its_motion_takes_from_the_one_that_was_sent(
    boxes: NDArray[np.int64] | None,
) -> None:
    generator = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(64), np.arange(64))
    centres = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    top, left, bottom, right = (0, 0, 64, 64) if boxes is None else boxes[0].tolist()
    for _ in range(50):
        moved = motion(generator.uniform(-45, 45), *generator.uniform(-30, 30, 2))
        shown = shown_pixels(boxes, moved[None], (64, 64), 1)
        assert shown is not None
        across, down = (
            centres @ moved.T.astype(np.float64)
        ).T  # of each pixel's centre in the picture that was sent
        inside = (across >= left - 0.5) & (across < right - 0.5) & (down >= top - 0.5) & (down < bottom - 0.5)
        np.testing.assert_array_equal(shown[0].ravel(), inside)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0, 0, 65, 64), r"shown at \[\[0, 0, 65, 64\]\] .* of a map of 64 rows and 64 columns"),
        ((0, 5, 64, 5), "shown at"),
        ((-1, 0, 64, 64), "shown at"),
    ],
)
def test_a_box_that_cannot_be_is_refused(box: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shown_pixels(np.array([box]), None, (64, 64), 1)


def test_positions_that_show_something_of_the_picture_stay() -> None:
    distances = [np.ones((1, side, side), np.float32) for side in (16, 8, 4)]
    shown = shown_pixels(np.array([[0, 0, 64, 33]]), None, (64, 64), 1)
    hidden = hide_beside(distances, shown)
    assert [int(stage[0, 0].sum()) for stage in hidden] == [9, 5, 3]  # the 33rd column is in these
    assert hide_beside(distances, None) is distances
    distances[0][0, 0, 15] = np.nan
    assert np.isnan(hide_beside(distances, shown)[0]).any()  # still an error


def test_a_part_that_was_found_beside_the_picture_alone_hides_nothing() -> None:
    foreground, shown = np.zeros((2, 2, 64, 64), bool)
    foreground[0, :, :20] = foreground[1, :, :10] = True
    shown[:, :, 12:52] = True
    counted = within_picture(foreground, shown)
    assert counted is not None
    np.testing.assert_array_equal(counted[0], foreground[0] & shown[0])
    np.testing.assert_array_equal(counted[1], shown[1])
    assert within_picture(None, None) is None
    assert within_picture(None, shown) is shown
    assert within_picture(foreground, None) is foreground


def test_boxes_are_read_back() -> None:
    boxes = np.array([[0, 12, 64, 52], [3, 0, 5, 64]])
    assert text_of_boxes(boxes) == "0,12,64,52;3,0,5,64"
    np.testing.assert_array_equal(boxes_of_text(text_of_boxes(boxes), 2), boxes)


def test_calibrations_of_before_keep_their_text_and_id() -> None:
    assert "picture_only" not in CALIBRATION.to_json()
    assert Calibration.from_json(PICTURE_ONLY.to_json()) == PICTURE_ONLY
    before = replace(PICTURE_ONLY, picture_only=False)
    assert release_id_of(before, "code") != release_id_of(PICTURE_ONLY, "code")
    with pytest.raises(ValueError, match="picture_only 1, expected true or false"):
        Calibration.from_json(json.dumps({**json.loads(PICTURE_ONLY.to_json()), "picture_only": 1}))


@pytest.fixture
def fusion(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server's step, which judges by `PICTURE_ONLY`, and by `CALIBRATION` for weights 2."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server_stub.PB_UTILS)
    for module in (map_fusion, fusion_regions, fusion_shown, verdict_metrics):
        monkeypatch.setitem(sys.modules, module.__name__.rpartition(".")[2], module)
    step = server_stub.load_step("distance_fusion")
    step.calibration = lambda weights_id: {1: PICTURE_ONLY, 2: CALIBRATION}[weights_id]
    return step


def ask(
    fusion: Any, outputs: tuple[str, ...], weights: int = 1, parameters: str = "", **more: Any
) -> tuple[dict[str, NDArray[Any]], TritonError | None]:
    """The step's answer about two images of which one is loud in columns 0 to 11 and 52 to 63, the other everywhere."""
    stages = [np.full((2, side, side), 0.1, np.float32) for side in (16, 8, 4)]
    stages[0][0, :, :3] = stages[0][0, :, 13:] = 9.0
    stages[0][1] = 9.0
    given = {f"distance_{number}": stage for number, stage in enumerate(stages, start=1)}
    ids = np.full((2, 1), weights, np.int64)
    (response,) = fusion.execute([Request({**given, "release_id": ids, **more}, outputs, parameters)])
    return {tensor.name(): tensor.value for tensor in response.tensors}, response.error


@pytest.mark.parametrize("outputs", [("pred_score",), ("pred_score", "anomaly_map", "pred_mask")])
@pytest.mark.parametrize("said_by", ["the decoder", "the client"])
def test_the_fusion_leaves_out_what_is_beside_the_pictures(
    fusion: Any, outputs: tuple[str, ...], said_by: str
) -> None:
    boxes = np.repeat(BOX, 2, axis=0).astype(np.int32)
    if said_by == "the decoder":
        answer, error = ask(fusion, outputs, shown=boxes)
    else:
        answer, error = ask(fusion, outputs, parameters=json.dumps({"shown": text_of_boxes(boxes)}))
    assert error is None
    quiet, loud = answer["pred_score"][:, 0]
    assert quiet == pytest.approx(0.3, abs=0.01)  # of the stages together, in the middle
    assert loud > 9
    whole, _ = ask(fusion, outputs)
    assert whole["pred_score"].min() > 9
    if "anomaly_map" in outputs:
        for name in ("anomaly_map", "pred_mask"):
            assert not answer[name][:, :, :12].any()
            assert not answer[name][:, :, 52:].any()
    of_before, _ = ask(fusion, outputs, weights=2, shown=boxes)
    assert of_before["pred_score"].min() > 8  # as it was calibrated


def test_the_fusion_moves_boxes_as_pictures_were_aligned(fusion: Any) -> None:
    # A pixel of the aligned picture shows one 40 columns to the left: its first 40 show nothing.
    motions = np.repeat(motion(0, -40, 0)[None], 2, axis=0)
    answer, error = ask(fusion, ("anomaly_map",), motion=motions)
    assert error is None
    assert not answer["anomaly_map"][:, :, :40].any()
    assert answer["anomaly_map"][:, :, 40:].all()


@pytest.mark.parametrize(
    "text", ["", "0,12,64", "0,12,64,52", "0,a,64,52;0,0,64,64", "0,0,64,65;0,0,64,64", 7]
)
def test_a_parameter_that_cannot_be_is_the_fault_of_who_asked(fusion: Any, text: Any) -> None:
    _, error = ask(fusion, ("pred_score",), parameters=json.dumps({"shown": text}))
    assert error is not None
    assert error.code == TritonError.INVALID_ARG
    assert "expected" in str(error)


def test_a_picture_of_which_nothing_is_left_is_at_fault(fusion: Any) -> None:
    fusion.calibration = lambda _: replace(PICTURE_ONLY, foreground="threshold")
    _, error = ask(fusion, ("pred_score",), foreground=np.zeros((2, 64, 64), bool))
    assert error is not None
    assert (error.code, "its foreground mask hides all of it" in str(error)) == (
        TritonError.INVALID_ARG,
        True,
    )


def test_a_fusion_of_before_keeps_its_id_and_one_that_is_damaged_has_none(tmp_path: Path) -> None:
    source = Path(fusion_shown.__file__).parent
    before = CODE_FILES[:-1]
    for name in before:
        shutil.copy(source / ("1/model.py" if name == "model.py" else name), tmp_path / name)
    digests = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in before)
    assert fusion_code_id(tmp_path) == hashlib.sha256(b"".join(digests)).hexdigest() != fusion_code_id(source)
    (tmp_path / "map_fusion.py").unlink()
    with pytest.raises(FileNotFoundError):
        fusion_code_id(tmp_path)
