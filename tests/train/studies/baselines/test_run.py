"""The baselines on a category: measured as `evaluate` measures, kept, not measured twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.conftest import CATEGORY, TINY_OPTIONS
from tests.train.evaluation.region_overlap import per_region_overlap
from train.checkpoint.tensors import load_checkpoint
from train.config import fit_config
from train.data.category import CategoryData, read_category, split_good
from train.errors import ConfigError, DataError
from train.evaluation.evaluate import evaluate
from train.method.student import load_teacher
from train.studies.baselines import run as baselines
from train.studies.baselines.anomalib_models import fit_anomalib, judge_with_anomalib
from train.studies.baselines.results import BaselineResult, baseline_table
from train.studies.baselines.run import measure_baseline, run_baselines
from train.support.devices import Runtime

CPU = torch.device("cpu")
CONFIG = fit_config("edge", TINY_OPTIONS)


def run(data: CategoryData, run_dir: Path, *, force: bool = False, **asked: object) -> list[BaselineResult]:
    options = {"config": CONFIG, "methods": ("padim", "patchcore"), "seeds": (0, 1)} | asked
    return run_baselines(data, run_dir=run_dir, runtime=Runtime("cpu", strict=True), force=force, **options)


def test_results_are_kept_and_not_computed_again(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run(tiny_data, tmp_path)
    assert [(r.method, r.seed) for r in results] == [
        ("padim", 0), ("padim", 1), ("patchcore", 0), ("patchcore", 1),
    ]  # fmt: skip
    stored = json.loads((tmp_path / "baselines.json").read_text())
    assert [entry["image_auroc"] for entry in stored] == [result.image_auroc for result in results]
    assert stored[0]["setup"]["anomalib"].startswith("2.7.")

    measured = []

    def counted(method: str, *args: object, seed: int, **kwargs: object) -> BaselineResult:
        measured.append((method, seed))
        return measure_baseline(method, *args, seed=seed, **kwargs)

    monkeypatch.setattr(baselines, "measure_baseline", counted)
    assert run(tiny_data, tmp_path) == results
    assert measured == []
    run(tiny_data, tmp_path, methods=("padim",), seeds=(1, 2))
    assert measured == [("padim", 2)]
    run(tiny_data, tmp_path, methods=("padim",), seeds=(2,), force=True)
    for changed in ({"image_size": 96}, {"smoothing_sigma": 4.0}, {"pool_size": 1}):
        config = fit_config("edge", TINY_OPTIONS | changed)
        run(tiny_data, tmp_path, methods=("padim",), seeds=(2,), config=config)
    run(replace(tiny_data, train_good=tiny_data.train_good[:-1]), tmp_path, methods=("padim",), seeds=(2,))
    assert measured == [("padim", 2)] * 6
    (larger,) = run(tiny_data, tmp_path, methods=("patchcore",), seeds=(1,), coreset_ratio=0.1)
    assert larger.image_auroc != results[3].image_auroc
    assert len(json.loads((tmp_path / "baselines.json").read_text())) == 10


def test_results_of_another_version_are_left_out_and_that_is_said(
    tiny_data: CategoryData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "baselines.json").write_text('[{"method": "padim", "seed": 0, "seconds_features": 1.0}]')
    (result,) = run(tiny_data, tmp_path, methods=("padim",), seeds=(0,))
    assert result.image_auroc is not None
    told = "".join(capsys.readouterr().err.split())  # a long path is broken over two lines
    assert "baselines.json holds results of another version".replace(" ", "") in told


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_measures_are_those_of_a_model_fitted_on_the_images_that_fit_would_train_on(
    tiny_data: CategoryData, tmp_path: Path, method: str
) -> None:
    """Fitted here once more on images read one by one, and measured by scikit-learn."""
    (result,) = run(tiny_data, tmp_path, methods=(method,), seeds=(1,))
    trained_on, held_out = split_good(16, holdout_ratio=CONFIG.holdout_ratio, seed=1)
    assert (len(trained_on), len(held_out)) == (14, 2)
    teacher, _ = load_teacher(CONFIG, weights_dir=None)

    def pixels(paths: list[Path]) -> NDArray[np.uint8]:
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    good = pixels([tiny_data.train_good[index] for index in trained_on])
    model = fit_anomalib(method, teacher, good, config=CONFIG, seed=1, device=CPU)
    maps, scores = judge_with_anomalib(model, pixels([image.path for image in tiny_data.test]), device=CPU)
    labels = [image.anomalous for image in tiny_data.test]
    masks = np.stack(
        [
            np.zeros((64, 64), bool)
            if image.mask_path is None
            else np.asarray(Image.open(image.mask_path)) > 0
            for image in tiny_data.test
        ]
    )
    assert (result.n_train, result.n_test) == (14, 11)
    assert result.image_auroc == pytest.approx(roc_auc_score(labels, scores))
    assert result.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-4)
    assert result.pro == pytest.approx(per_region_overlap(maps, masks), abs=1e-4)


def test_a_kind_without_masks_counts_as_good_pixels_for_nobody(
    tiny_data: CategoryData,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What `evaluate` cannot measure, no baseline measures, and both say the same sentence."""
    root = tmp_path / CATEGORY
    shutil.copytree(tiny_data.root, root)
    kind = next(image.defect for image in tiny_data.test if image.anomalous)
    shutil.rmtree(root / "ground_truth" / kind)
    data = read_category(root, dataset="synthetic", category=CATEGORY)
    evaluation = evaluate(load_checkpoint(tiny_checkpoint), data, runtime=Runtime("cpu", strict=True))
    assert evaluation is not None
    for result in run(data, tmp_path / "run", seeds=(0,)):
        assert result.image_auroc is not None
        assert (result.pixel_auroc, result.pro) == (None, None)
    assert (evaluation.metrics["pixel_auroc"], evaluation.metrics["pro"]) == (None, None)
    (sentence,) = evaluation.metrics["unavailable"]
    assert f"of kind {kind} have no mask" in sentence
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_the_table_says_what_was_measured_and_the_mean(tiny_data: CategoryData, tmp_path: Path) -> None:
    first = run(tiny_data, tmp_path, methods=("padim",), seeds=(0,))[0]
    results = [
        replace(first, image_auroc=0.5, pixel_auroc=None, pro=None),
        replace(first, seed=1, image_auroc=0.75),
    ]
    text = baseline_table(results).markdown()
    assert "anomalib 2.7." in text
    assert "pill (synthetic), 64 px, test_resnet (random weights)" in text
    assert "not available" in text
    assert "0.6250" in text


def test_what_cannot_be_measured_is_told(tiny_data: CategoryData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown method 'cfa'; expected some of padim, patchcore"):
        run(tiny_data, tmp_path, methods=("padim", "cfa"))
    with pytest.raises(DataError, match="has no test images; put them into"):
        run(replace(tiny_data, test=()), tmp_path)
    assert list(tmp_path.iterdir()) == []
