"""`--image-size auto` becomes a size once for a category's images, and its run keeps it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import CATEGORY
from tests.train.data.test_shapes import category
from train.data.category import CategoryData
from train.data.known_defects import read_known_defects
from train.data.size_proposal import propose_size
from train.errors import ConfigError
from train.runs import sizing, with_image_size
from train.support.devices import Runtime

AUTO = {"image_size": "auto", "teacher": "test_resnet", "student": "test_efficientnet"}


def resolve(data: CategoryData, run_dir: Path, overrides: dict[str, Any], **options: Any) -> Any:
    asked = {"preset": "edge", "ms_per_image": None, "force": False, **options}
    return with_image_size(overrides, data, run_dir=run_dir, runtime=Runtime("cpu"), **asked)


def test_a_size_is_proposed_and_told(
    tiny_data: CategoryData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = resolve(tiny_data, tmp_path, AUTO)
    assert resolved == {**AUTO, "image_size": 64}  # no larger than the pictures
    told = " ".join(capsys.readouterr().err.split())
    assert "Image size 64: pictures are 64 x 64 pixels, wide and high; the smallest defect, in " in told


def test_a_time_bounds_it(
    tiny_data: CategoryData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sizing, "_ms_per_megapixel", lambda config, runtime: 1000.0)
    assert resolve(tiny_data, tmp_path, AUTO, ms_per_image=2.0)["image_size"] == 32
    assert "64 was wanted and takes 4.1 ms of 2" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match="--ms-per-image bounds the size that --image-size auto proposes"):
        resolve(tiny_data, tmp_path, {"image_size": 64}, ms_per_image=2.0)


def test_the_masks_of_known_defects_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = replace(category(tmp_path / "cup", (1000, 1000)), test=())
    assert resolve(data, tmp_path, {"image_size": "auto"})["image_size"] == 128
    folder = tmp_path / "known"
    (folder / "ground_truth" / "speck").mkdir(parents=True)
    (folder / "speck").mkdir()
    shutil.copy(data.train_good[0], folder / "speck" / "a.png")
    mask = Image.new("L", (1000, 1000))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(folder / "ground_truth" / "speck" / "a_mask.png")
    known = read_known_defects(folder)
    assert resolve(data, tmp_path, {"image_size": "auto"}, known=known)["image_size"] == 416  # 8 of 20 pixels
    assert "a_mask.png, is 20.0 pixels wide and 8.3 at this size" in " ".join(capsys.readouterr().err.split())


def test_common_factors_that_are_asked_for_need_a_size_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = category(tmp_path / "cup", (1000, 1000))
    seen: list[bool] = []

    def noted(*args: Any, may_keep_own: bool, **options: Any) -> Any:
        seen.append(may_keep_own)
        return propose_size(*args, may_keep_own=may_keep_own, **options)

    monkeypatch.setattr(sizing, "propose_size", noted)
    for overrides in ({}, {"common_factors": 0}, {"common_factors": 4}):
        resolve(data, tmp_path, {"image_size": "auto", **overrides})
    assert seen == [True, True, False]


def test_the_networks_are_timed(tiny_data: CategoryData, tmp_path: Path) -> None:
    assert resolve(tiny_data, tmp_path, AUTO, ms_per_image=1e6)["image_size"] == 64


def test_a_run_of_the_same_images_keeps_its_size(
    tiny_data: CategoryData,
    tiny_runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sizing, "_ms_per_megapixel", lambda config, runtime: 1000.0)
    run_dir = tiny_runs / CATEGORY
    assert resolve(tiny_data, run_dir, AUTO, ms_per_image=2.0)["image_size"] == 64
    assert "Image size 64, that of the run of these images in" in " ".join(capsys.readouterr().err.split())
    assert resolve(tiny_data, run_dir, AUTO, ms_per_image=2.0, force=True)["image_size"] == 32


def test_another_size_stays_as_it_was_given(tiny_data: CategoryData, tmp_path: Path) -> None:
    assert resolve(tiny_data, tmp_path, {"image_size": "64x96"}) == {"image_size": "64x96"}
