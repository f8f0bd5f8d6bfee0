"""Where the defects of a mask lie and how large they are, in pixels of the image as it came."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import ClientError, Defect
from client.core.defects import find_defects, resize_map
from tests.client.samples import make_verdict


def mask_of(*cells: tuple[int, int], size: int = 8) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    for row, column in cells:
        mask[row, column] = True
    return mask


def found(mask: np.ndarray, *, original_size: tuple[int, int], min_area: int = 0) -> tuple[Defect, ...]:
    anomaly_map = np.arange(mask.size, dtype=np.float32).reshape(mask.shape)
    return find_defects(mask, anomaly_map, original_size=original_size, min_area=min_area)


def test_by_hand_each_axis_with_its_own_scale() -> None:
    """A mask of 8 cells over 80 x 16 pixels: a cell is 10 pixels wide and 2 high."""
    (defect,) = found(mask_of((2, 3), (2, 4), (3, 4)), original_size=(80, 16))
    assert defect == Defect(
        left=30,
        top=4,
        width=20,
        height=4,
        area=60,
        peak=28.0,  # of 8 * 3 + 4
        mean=pytest.approx((19 + 20 + 28) / 3),
        centre_x=pytest.approx(10 * (3 + 4 + 4 + 1.5) / 3),
        centre_y=pytest.approx(2 * (2 + 2 + 3 + 1.5) / 3),
    )
    assert json.loads(json.dumps(defect.to_dict())) == defect.to_dict()
    assert list(defect.to_dict()) == [
        "left", "top", "width", "height", "area", "peak", "mean", "centre_x", "centre_y",
    ]  # fmt: skip


def test_a_scratch_that_runs_aslant_is_one_defect() -> None:
    """Its cells touch at their corners alone; by 4 neighbours it would be eight defects."""
    (defect,) = found(mask_of(*((index, index) for index in range(8))), original_size=(8, 8))
    assert (defect.left, defect.top, defect.width, defect.height, defect.area) == (0, 0, 8, 8, 8)


def test_the_one_with_the_highest_peak_comes_first_and_small_ones_are_left_out() -> None:
    mask = mask_of((0, 0), (0, 1), (3, 3), (7, 6), (7, 7))
    assert [defect.peak for defect in found(mask, original_size=(16, 16))] == [63, 27, 1]
    assert [defect.area for defect in found(mask, original_size=(16, 16))] == [8, 4, 8]
    assert [defect.peak for defect in found(mask, original_size=(16, 16), min_area=5)] == [63, 1]
    assert found(mask, original_size=(16, 16), min_area=9) == ()
    assert found(mask_of(), original_size=(16, 16)) == ()


def test_an_image_smaller_than_its_mask() -> None:
    """A cell is less than a pixel; what it marks has one at least."""
    (defect,) = found(mask_of((7, 7)), original_size=(3, 2))
    assert (defect.left, defect.top, defect.width, defect.height, defect.area) == (2, 1, 1, 1, 1)


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 5000), height=st.integers(1, 5000), seed=st.integers(0, 999), size=st.integers(1, 40)
)
def test_boxes_lie_in_the_image_and_hold_their_area(width: int, height: int, seed: int, size: int) -> None:
    mask = np.random.default_rng(seed).random((size, size)) > 0.7
    defects = found(mask, original_size=(width, height))
    for defect in defects:
        assert 0 <= defect.left < defect.left + defect.width <= width
        assert 0 <= defect.top < defect.top + defect.height <= height
        assert 1 <= defect.area <= defect.width * defect.height
        assert defect.left <= defect.centre_x <= defect.left + defect.width
        assert defect.top <= defect.centre_y <= defect.top + defect.height
        assert defect.mean <= defect.peak
    share = sum(defect.area for defect in defects) / (width * height)
    if min(width, height) >= 2000:
        assert share == pytest.approx(mask.mean(), abs=0.001)


def test_a_verdict_finds_them_when_first_asked() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[1, 2], anomaly_map[6, 6] = 3.0, 2.0
    verdict = make_verdict(anomaly_map, threshold=1.0, original_size=(800, 400))
    assert "defects" not in vars(verdict)
    assert [(defect.left, defect.top, defect.peak) for defect in verdict.defects] == [
        (200, 50, 3.0),
        (600, 300, 2.0),
    ]
    assert verdict.defects is verdict.defects


def test_a_map_at_the_original_size_peaks_where_the_defect_is() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[1, 6] = 3.0
    verdict = make_verdict(anomaly_map, original_size=(160, 40))
    large = verdict.map_at_original_size()
    assert (large.shape, large.dtype) == ((40, 160), np.float32)
    assert 2.5 < large.max() <= 3.0  # the cell's centre lies between pixels
    row, column = np.unravel_index(large.argmax(), large.shape)
    (defect,) = verdict.defects
    assert defect.left <= column < defect.left + defect.width
    assert defect.top <= row < defect.top + defect.height
    np.testing.assert_array_equal(resize_map(anomaly_map, (8, 8)), anomaly_map)
    # A map of a ramp stays one: between two cells' centres, their values' mean.
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))
    np.testing.assert_allclose(resize_map(ramp, (8, 4))[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


@pytest.mark.parametrize("original_size", [(3, 2), (3, 40), (40, 3), (8, 7), (1, 1)])
def test_a_map_keeps_its_peak_in_a_smaller_image(original_size: tuple[int, int]) -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[5, 2:4] = 9.0
    small = resize_map(anomaly_map, original_size)
    assert small.shape == original_size[::-1]
    assert small.max() == pytest.approx(9.0, abs=1.0 if max(original_size) > 8 else 0)
    if original_size == (8, 7):
        np.testing.assert_array_equal(np.argwhere(small == 9), [[4, 2], [4, 3], [5, 2], [5, 3]])


def test_tens_of_thousands_of_specks_are_found_in_a_moment() -> None:
    mask = np.zeros((512, 512), np.bool_)
    mask[::2, ::2] = True
    began_s = time.process_time()
    defects = found(mask, original_size=(1024, 1024))
    assert time.process_time() - began_s < 1.5  # one after another took 3 s and more
    assert len(defects) == 65_536
    assert (defects[0].left, defects[0].top, defects[0].area, defects[-1].peak) == (1020, 1020, 4, 0.0)


def test_scipy_is_loaded_when_defects_are_asked_for_and_missed_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = "import sys, client; print(any(name.startswith('scipy') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    imported = builtins.__import__

    def without_scipy(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "scipy":
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ClientError, match=r"found with scipy, which is not installed; install .*client"):
        found(mask_of((1, 1)), original_size=(8, 8))
    assert found(mask_of(), original_size=(8, 8)) == ()


def test_a_size_without_pixels_has_no_map() -> None:
    with pytest.raises(ValueError, match="0 x 3 pixels has no map"):
        resize_map(np.zeros((8, 8), np.float32), (0, 3))
