"""Regions of a run: calibrated anew without a training, remembered, measured by, and taken back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repository.distance_fusion.fusion_regions import inspected_pixels
from tests.conftest import CATEGORY, TINY_OPTIONS
from train.calibration.thresholds import fit_calibration
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.tensors import load_checkpoint
from train.config import DrawnRegions, FitConfig
from train.data.category import CategoryData
from train.data.regions import map_regions
from train.errors import RegionsError
from train.evaluation import report
from train.evaluation.evaluate import evaluate
from train.fitting import fit as fitting
from train.runs import evaluate_category, fit_category
from train.support.devices import Runtime

BOX = [[4, 4], [60, 4], [60, 60], [4, 60]]
REGIONS = DrawnRegions.model_validate(
    {"picture": [64, 64], "inspect": [BOX], "ignore": [[[30, 30], [64, 30], [64, 64], [30, 64]]]}
)


@pytest.fixture
def run_dir(tiny_runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_runs / CATEGORY, tmp_path / "runs" / CATEGORY)


@pytest.fixture(autouse=True)
def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training would fail, and pictures take seconds to draw."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(fitting, "train_student", refuse)
    monkeypatch.setattr(report, "data_uri", lambda *_, **__: "data:,")


def fit(data: CategoryData, run_dir: Path, **changes: Any) -> bool:
    return fit_category(
        data, preset="edge", overrides=TINY_OPTIONS | changes, run_dir=run_dir, runtime=Runtime("cpu")
    )


def test_a_finished_run_takes_regions_without_a_training_remembers_them_and_gives_them_back(
    tiny_data: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_dir / "checkpoint.safetensors"
    first_id, first = read_release_id(path), path.read_bytes()
    assert b"regions" not in first
    assert not fit(tiny_data, run_dir, regions=REGIONS)
    (kept,) = (run_dir / "earlier").glob(f"*/{CATEGORY}")
    assert (kept / path.name).read_bytes() == first
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Calibrated anew with regions (1 to inspect, 1 to ignore, drawn on 64 x 64 pixels), nothing" in said
    )

    checkpoint, before = load_checkpoint(path), load_checkpoint(kept / path.name)
    assert checkpoint.config.regions == REGIONS
    assert checkpoint.calibration.regions == map_regions(checkpoint.config, keep_aspect=False)
    assert checkpoint.weights_id == before.weights_id  # nothing that the graph holds has changed
    assert checkpoint.calibration.stage_weights == before.calibration.stage_weights
    assert checkpoint.calibration.image_threshold <= before.calibration.image_threshold
    assert read_release_id(path) == checkpoint.release_id != first_id
    usual = checkpoint.provenance.usual_scores
    assert usual is not None
    assert usual.score.most == pytest.approx(checkpoint.calibration.image_threshold, rel=0.01)

    whole = path.read_bytes()
    assert not fit(tiny_data, run_dir)  # remembered
    assert "remembers them" in " ".join(capsys.readouterr().err.split())
    assert path.read_bytes() == whole

    assert evaluate_category(tiny_data, run_dir=run_dir, runtime=Runtime("cpu")).startswith("Evaluated")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["release_id"] == checkpoint.release_id
    assert metrics["regions"]["picture"] == [64, 64]
    assert 0.4 < metrics["regions"]["inspected_share"] < 0.7
    assert "1 to inspect, 1 to ignore" in (run_dir / "report.html").read_text()
    assert evaluate_category(tiny_data, run_dir=run_dir, runtime=Runtime("cpu")).startswith("Up to date")

    assert not fit(tiny_data, run_dir, regions=None)
    assert "Calibrated anew without regions" in " ".join(capsys.readouterr().err.split())
    assert read_release_id(path) == first_id
    assert b"regions" not in path.read_bytes()


def test_regions_that_do_not_hold_leave_the_run_as_it_is(tiny_data: CategoryData, run_dir: Path) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    wide = DrawnRegions.model_validate({"picture": [640, 480], "inspect": [BOX]})
    with pytest.raises(
        RegionsError, match=r"drawn on a picture of 640 x 480 pixels .* \(64 x 64\) of the training pictures"
    ):
        fit(tiny_data, run_dir, regions=wide)
    speck = DrawnRegions.model_validate({"picture": [64, 64], "inspect": [[[3, 3], [3.1, 3], [3, 3.1]]]})
    with pytest.raises(RegionsError, match="leave nothing to inspect"):
        fit(tiny_data, run_dir, regions=speck)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    assert read_header(run_dir / "checkpoint.safetensors").config.regions is None


def test_a_calibration_changes_only_by_what_is_hidden() -> None:
    rng = np.random.default_rng(0)
    distances = [rng.uniform(0, 1, (20, side, side)).astype(np.float32) for side in (16, 8, 4)]
    config = FitConfig(image_size=64, stage_weighting="good_maximum", smoothing_sigma=1.0, score_share=0.01)
    parts = rng.uniform(size=(20, 64, 64)) > 0.5

    def calibration(regions: DrawnRegions | None, **how: Any) -> Any:
        own = config.model_copy(update={"regions": regions})
        mapped = map_regions(own, keep_aspect=False)
        return fit_calibration(distances, config=own, category="pill", parts=parts, regions=mapped, **how)

    everything = DrawnRegions.model_validate(
        {"picture": [64, 64], "inspect": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
    )
    plain, whole, some = (calibration(regions) for regions in (None, everything, REGIONS))
    judged_by = ("image_threshold", "pixel_threshold", "stage_weights")
    assert [getattr(whole, name) for name in judged_by] == [getattr(plain, name) for name in judged_by]
    assert some.stage_weights == plain.stage_weights
    assert some.image_threshold < plain.image_threshold
    # The same as a part that is the same in all images.
    mask = np.broadcast_to(inspected_pixels(some.regions, (64, 64)), (20, 64, 64))
    masked = calibration(None, foreground=mask)
    assert some.image_threshold == masked.image_threshold


def test_what_lies_outside_counts_for_no_pixel_measure_and_is_told(
    tiny_data: CategoryData, tiny_checkpoint: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    corner = DrawnRegions.model_validate(
        {"picture": [64, 64], "inspect": [[[0, 0], [12, 0], [12, 12], [0, 12]]]}
    )
    config = checkpoint.config.model_copy(update={"regions": corner})
    regions = map_regions(config, keep_aspect=False)
    checkpoint = replace(
        checkpoint, config=config, calibration=replace(checkpoint.calibration, regions=regions)
    )
    judged = evaluate(checkpoint, tiny_data, runtime=Runtime("cpu"))
    assert judged is not None
    masks = judged.judged.masks
    assert masks is not None
    outside = [mask for mask in masks[judged.judged.labels] if not mask[:12, :12].any()]
    assert len(outside) > 2
    told = [
        sentence for sentence in judged.metrics["unavailable"] if "wholly outside the regions" in sentence
    ]
    assert len(told) >= 1
    assert judged.metrics["regions"]["n_defects_outside"] >= len(outside)
    assert judged.metrics["n_test_anomalous"] == 7  # image measures count them all
    assert not judged.judged.verdict.anomaly_map[:, 12:].any()
