"""Regions of parts that are aligned: drawn on the reference picture, and moved with each part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_repository.distance_fusion.fusion_regions import inspected_pixels
from tests.conftest import CATEGORY, TINY_OPTIONS, FitTiny
from tests.moved_parts import move_category
from train.checkpoint.header import read_release_id
from train.checkpoint.tensors import load_checkpoint
from train.config import DrawnRegions
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.errors import ConfigError, RegionsError
from train.evaluation import report
from train.evaluation.evaluate import evaluate, inspected_of
from train.runs import evaluate_category, fit_category, tell_not_aligned
from train.runs.folder import RunFolder
from train.support.devices import Runtime

LEFT = DrawnRegions.model_validate(
    {"picture": [64, 64], "inspect": [[[0, 0], [32, 0], [32, 64], [0, 64]]], "ignore": []}
)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData) -> CategoryData:
    return move_category(tiny_data, tmp_path_factory.mktemp("moved") / CATEGORY)


@pytest.fixture(scope="module")
def aligned_run(tmp_path_factory: pytest.TempPathFactory, moved: CategoryData, fit_tiny: FitTiny) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / CATEGORY
    fit_tiny(moved, run_dir, align="on")
    return run_dir


@pytest.fixture
def run_dir(aligned_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(aligned_run, tmp_path / "runs" / CATEGORY)


def fit(data: CategoryData, run_dir: Path, **changes: Any) -> bool:
    asked = TINY_OPTIONS | {"align": "on"} | changes
    return fit_category(data, preset="edge", overrides=asked, run_dir=run_dir, runtime=Runtime("cpu"))


def test_the_picture_to_draw_them_on_lies_in_the_run(run_dir: Path) -> None:
    reference = load_checkpoint(RunFolder(run_dir).checkpoint).reference
    assert reference is not None
    np.testing.assert_array_equal(np.asarray(Image.open(run_dir / "reference.png")), reference.pixels)


def test_commands_that_take_pictures_as_they_lie_say_so(
    run_dir: Path, tiny_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_not_aligned(tiny_runs / CATEGORY, "the search for suspects")
    tell_not_aligned(run_dir / "nothing", "the search for suspects")
    assert capsys.readouterr().err == ""
    tell_not_aligned(run_dir, "the search for suspects")
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith("aligns its pictures; the search for suspects takes them as they lie.")


def test_they_move_with_the_parts(
    moved: CategoryData, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "data_uri", lambda *_, **__: "data:,")
    assert not fit(moved, run_dir, regions=LEFT)
    checkpoint = load_checkpoint(RunFolder(run_dir).checkpoint)
    assert read_release_id(RunFolder(run_dir).checkpoint) == checkpoint.release_id
    assert (run_dir / "reference.png").is_file()
    calibration = checkpoint.calibration
    assert (calibration.picture_only, calibration.regions is not None) == (True, True)
    evaluation = evaluate(checkpoint, moved, runtime=Runtime("cpu"))
    assert evaluation is not None
    images = load_images(
        [image.path for image in moved.test], image_size=64, strict=True, reference=checkpoint.reference
    )
    inspected = inspected_of(calibration.regions, images)
    assert inspected is not None
    assert evaluation.judged.inspected is not None
    np.testing.assert_array_equal(evaluation.judged.inspected, inspected)
    maps = evaluation.judged.verdict.anomaly_map
    assert maps[inspected].mean() > 100 * maps[~inspected].mean()  # 0, but where a pixel was between two
    still = inspected_pixels(calibration.regions, (64, 64))
    assert (inspected != still).mean() > 0.05  # parts lie elsewhere in pictures as they were sent
    assert evaluate_category(moved, run_dir=run_dir, runtime=Runtime("cpu")).startswith("Evaluated")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert 0.3 < metrics["regions"]["inspected_share"] < 0.6


def test_others_than_of_the_reference_picture_are_refused(moved: CategoryData, run_dir: Path) -> None:
    wide = LEFT.model_copy(update={"picture": (640, 480)})
    with pytest.raises(
        RegionsError, match=r"reference picture of 64 x 64 pixels, reference.png in .* on one of 640 x 480"
    ):
        fit(moved, run_dir, regions=wide)
    with pytest.raises(ConfigError, match="on the reference picture where it is on; expected one of these"):
        fit(moved, run_dir, align="auto", regions=LEFT)
