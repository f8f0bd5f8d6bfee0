"""Parts that lie anywhere are brought to where the reference has them, and what was judged there goes back."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from export.manifest import ALIGNMENT_FILE
from model_repository.alignment import picture_alignment, reference_picture
from model_repository.alignment.picture_alignment import (
    Aligner,
    AlignmentError,
    gray_of,
    move_masks,
    restore_maps,
    restore_masks,
    turn_of,
)
from model_repository.alignment.reference_picture import FILE, Reference
from tests.model_repository.drawn_parts import MIDDLE, SIDE, drawn, laid
from tests.model_repository.server_stub import PB_UTILS, Request, TritonError, load_step

LEAST = 0.8


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(Reference(gray_of(drawn()), LEAST))


@pytest.mark.parametrize(
    ("turn", "right", "down"),
    [(0, 0, 0), (0, 5, -3), (0, 24, 0), (0, -20, 24), (30, 0, 0), (-30, 10, 8), (40, -12, 4), (-44, 0, 12)],
)
def test_shift_and_turn_are_found(aligner: Aligner, turn: float, right: float, down: float) -> None:
    picture, matrix = laid(drawn(), turn, right, down)
    aligned = aligner.align(picture)
    corners = np.array([[24, 34, 1], [72, 34, 1], [48, 62, 1]], float).T  # of the part
    assert np.abs(aligned.motion @ corners - matrix @ corners).max() < 0.5
    assert aligned.correlation > 0.95
    middle = np.s_[30:66, 22:74]
    assert np.abs(aligned.pixels[middle].astype(float) - drawn()[middle]).mean() < 8
    shift, angle = turn_of(aligned.motion, (SIDE, SIDE))
    assert shift == pytest.approx(float(np.hypot(right, down)), abs=0.5)
    assert angle == pytest.approx(-turn, abs=0.7)  # OpenCV's turns are counter-clockwise


def test_a_plain_shift_is_the_matrix_of_that_shift(aligner: Aligner) -> None:
    picture, _ = laid(drawn(), 0, 5, 3)
    np.testing.assert_allclose(aligner.nearest(picture).motion, [[1, 0, 5], [0, 1, 3]], atol=0.15)


def test_another_rectangle_than_a_square() -> None:
    picture = drawn((64, 128))
    aligned = Aligner(Reference(gray_of(picture), LEAST)).align(laid(picture, 20, 30, -9)[0])
    np.testing.assert_allclose(turn_of(aligned.motion, (64, 128)), (np.hypot(30, 9), -20), atol=0.7)


@pytest.mark.parametrize("kind", ["noise", "black", "white", "a gradient"])
def test_what_is_no_part_cannot_be_aligned(aligner: Aligner, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    gradient = np.broadcast_to(np.arange(SIDE, dtype=np.uint8)[:, None, None], (SIDE, SIDE, 3))
    picture = {"noise": noise, "black": noise * 0, "white": noise * 0 + 255, "a gradient": gradient}[kind]
    with pytest.raises(
        AlignmentError, match=r"^cannot be aligned: its correlation .* at best, and 0\.800 is expected"
    ):
        aligner.align(np.ascontiguousarray(picture))


def test_a_picture_of_another_size_is_told(aligner: Aligner) -> None:
    with pytest.raises(ValueError, match="a picture of 64 x 96 pixels cannot be aligned to one of 96 x 96"):
        aligner.nearest(np.zeros((64, 96, 3), np.uint8))


def test_maps_and_masks_go_back_to_where_the_defect_is(aligner: Aligner) -> None:
    """A blot on the picture as it came is marked in the aligned one, and the mark goes back onto the blot."""
    picture, matrix = laid(drawn(), 25, 11, -7)
    x, y = (matrix @ [MIDDLE - 12, MIDDLE + 6, 1]).round().astype(int)
    truth = np.zeros((SIDE, SIDE), bool)
    truth[y - 3 : y + 4, x - 3 : x + 4] = True
    motions = aligner.align(picture).motion[None]
    marked = move_masks(truth[None], motions)
    rows, columns = np.nonzero(marked[0])
    assert np.hypot(rows.mean() - (MIDDLE + 6), columns.mean() - (MIDDLE - 12)) < 1
    back = restore_masks(marked, motions)[0]
    assert (back & truth).sum() > 0.8 * (back | truth).sum()
    anomaly_map = cv2.GaussianBlur(marked[0].astype(np.float32), (0, 0), 3.0)
    restored = restore_maps(anomaly_map[None], motions)[0]
    assert restored.dtype == np.float32
    assert restored.max() == anomaly_map.max()
    assert np.hypot(*(np.unravel_index(restored.argmax(), restored.shape) - np.array([y, x]))) < 2


def test_where_the_aligned_picture_does_not_reach_nothing_is_marked() -> None:
    right = np.array([[[1, 0, 30], [0, 1, 0]]], np.float32)
    maps, masks = (
        restore_maps(np.ones((1, 8, 96), np.float32), right),
        restore_masks(np.ones((1, 8, 96), bool), right),
    )
    expected = np.repeat(np.arange(96)[None] >= 30, 8, axis=0)
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_array_equal(maps[0], expected)


def test_the_highest_value_stays_where_it_lies_beyond_the_edge() -> None:
    anomaly_map = np.zeros((1, 10, 10), np.float32)
    anomaly_map[0, 4, 9] = 2
    restored = restore_maps(anomaly_map, np.array([[[1, 0, 5], [0, 1, 0]]], np.float32))
    assert restored[0, 4, 9] == 2
    assert (restored > 0).sum() == 1


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    reference = Reference(gray_of(drawn((32, 64))), 0.625, "4.11.0")
    path = tmp_path / FILE
    path.write_text(reference.to_json())
    read = Reference.load(path)
    np.testing.assert_array_equal(read.pixels, reference.pixels)
    assert (read.least_correlation, read.opencv) == (0.625, "4.11.0")
    assert FILE == ALIGNMENT_FILE


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("astmfr-alignment-1", "astmfr-alignment-2", "its format is 'astmfr-alignment-2'"),
        ('"height": 32', '"height": 31', "cannot reshape"),
        ('"gray": "', '"gray": "?', "Only base64 data"),
        ("0.625", "1.5", "its least_correlation is 1.5"),
        ("0.625", "NaN", "its least_correlation is nan"),
        ('"gray"', '"grey"', "it is no reference picture"),
    ],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / FILE
    path.write_text(Reference(gray_of(drawn((32, 64))), 0.625).to_json().replace(old, new))
    with pytest.raises(ValueError, match=reason):
        Reference.load(path)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    modules: dict[str, ModuleType] = {
        "triton_python_backend_utils": PB_UTILS,
        "picture_alignment": picture_alignment,
        "reference_picture": reference_picture,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    step = load_step("alignment")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / FILE).write_text(Reference(gray_of(drawn()), LEAST, cv2.__version__).to_json())
    step.initialize({"model_repository": str(tmp_path), "model_version": "1"})
    return step


def test_the_step_names_each_image_that_cannot_be_aligned_and_answers_the_others(step: Any) -> None:
    good, noise = drawn(), np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    first, second = step.execute(
        [Request({"image": np.stack([good, noise])}), Request({"image": good[None]})]
    )
    assert str(first.error).startswith("image 2 of 2 cannot be aligned: its correlation")
    assert first.error.code == TritonError.INVALID_ARG
    outputs = {tensor.name(): tensor.as_numpy() for tensor in second.tensors}
    assert {name: value.shape for name, value in outputs.items()} == {
        "aligned_image": (1, SIDE, SIDE, 3),
        "motion": (1, 2, 3),
    }
    maps, masks = np.ones((1, SIDE, SIDE), np.float32), np.ones((1, SIDE, SIDE), bool)
    given = {"aligned_map": maps, "aligned_mask": masks, "aligned_motion": outputs["motion"]}
    (restored,) = step.execute([Request(given)])
    assert [tensor.name() for tensor in restored.tensors] == ["anomaly_map", "pred_mask"]
    (faulty,) = step.execute([Request({"aligned_map": maps})])
    assert str(faulty.error).startswith("no image can be aligned (TypeError")


def test_another_opencv_is_told_in_the_servers_log(
    step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    logger = SimpleNamespace(log_warn=told.append)
    monkeypatch.setattr(PB_UTILS, "Logger", logger, raising=False)
    (tmp_path / "1" / FILE).write_text(Reference(gray_of(drawn()), LEAST, "3.1.4").to_json())
    step.initialize({"model_repository": str(tmp_path), "model_version": "1"})
    assert len(told) == 1
    assert (
        f"was made with OpenCV 3.1.4, and this is {cv2.__version__}: scores will differ a little" in told[0]
    )


def test_the_step_does_not_start_without_its_reference(step: Any, tmp_path: Path) -> None:
    (tmp_path / "1" / FILE).write_text("{}")
    with pytest.raises(
        ValueError, match=r"alignment\.json cannot be used \(it is no reference.*publish the category"
    ):
        step.initialize({"model_repository": str(tmp_path), "model_version": "1"})
