"""The baselines on a category: measured, kept, not measured twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from tests.conftest import TINY_OPTIONS
from tests.train.evaluation.region_overlap import per_region_overlap
from train.config import fit_config
from train.data.category import CategoryData, split_good
from train.errors import ConfigError, DataError
from train.method.student import load_teacher
from train.studies.baselines import run as baselines
from train.studies.baselines.padim import fit_padim, padim_maps
from train.studies.baselines.results import BaselineResult, baseline_table
from train.studies.baselines.run import BaselineInputs, measure_baseline, run_baselines, upsample
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
    run(
        tiny_data,
        tmp_path,
        methods=("padim",),
        seeds=(2,),
        config=fit_config("edge", TINY_OPTIONS | {"image_size": 96}),
    )
    run(replace(tiny_data, train_good=tiny_data.train_good[:-1]), tmp_path, methods=("padim",), seeds=(2,))
    assert measured == [("padim", 2)] * 4
    assert len(json.loads((tmp_path / "baselines.json").read_text())) == 7


@pytest.mark.parametrize("seed", [0, 1])
def test_measures_are_those_of_a_model_fitted_on_the_images_that_fit_would_train_on(
    tiny_data: CategoryData, tmp_path: Path, seed: int
) -> None:
    """Fitted here once more on images read one by one, and measured by scikit-learn."""
    (result,) = run(tiny_data, tmp_path, methods=("padim",), seeds=(seed,))
    trained_on, held_out = split_good(16, holdout_ratio=CONFIG.holdout_ratio, seed=seed)
    assert (len(trained_on), len(held_out)) == (14, 2)
    teacher, _ = load_teacher(CONFIG, weights_dir=None)

    def features(paths: Sequence[Path]) -> list[NDArray[np.float32]]:
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        with torch.no_grad():
            stages = teacher(torch.from_numpy(pixels))
        return [stage.permute(0, 2, 3, 1).numpy() for stage in stages]

    padim = fit_padim(features([tiny_data.train_good[i] for i in trained_on]), seed=seed, device=CPU)
    maps = upsample(padim_maps(padim, features([image.path for image in tiny_data.test])), image_size=64)
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
    assert result.image_auroc == pytest.approx(roc_auc_score(labels, maps.max(axis=(1, 2))))
    assert result.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-4)
    assert result.pro == pytest.approx(per_region_overlap(maps, masks), abs=1e-4)


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_a_planted_anomaly_is_found(method: str) -> None:
    generator = np.random.default_rng(0)
    good, test = (
        tuple(
            generator.normal(size=(n, side, side, channels)).astype(np.float32)
            for side, channels in ((16, 4), (8, 4), (4, 4))
        )
        for n in (40, 10)
    )
    labels = np.arange(10) >= 5
    masks = np.zeros((10, 64, 64), bool)
    for image in np.flatnonzero(labels):
        test[0][image, 8:12, 4:8] += 8
        test[1][image, 4:6, 2:4] += 8
        masks[image, 32:48, 16:32] = True
    inputs = BaselineInputs(good=good, test=test, labels=labels, masks=masks, image_size=64, seconds=0.0)
    result = measure_baseline(method, inputs, seed=0, holdout_ratio=0.1, setup={}, device=CPU)
    assert result.n_train == 36
    assert result.image_auroc == 1
    assert result.pixel_auroc is not None
    assert result.pixel_auroc > 0.95
    assert result.pro is not None
    assert result.pro > 0.8
    unmasked = measure_baseline(
        method, replace(inputs, masks=None), seed=0, holdout_ratio=0.1, setup={}, device=CPU
    )
    assert (unmasked.pixel_auroc, unmasked.pro) == (None, None)


def test_maps_are_upsampled_and_blurred_as_by_torch_and_scipy() -> None:
    maps = np.random.default_rng(0).random((2, 8, 8), np.float32)
    large = F.interpolate(torch.from_numpy(maps)[None], size=32, mode="bilinear", align_corners=False)[0]
    expected = [gaussian_filter(one, sigma=4) for one in large.numpy()]
    np.testing.assert_allclose(upsample(maps, image_size=32), expected, rtol=1e-4)


def test_the_table_says_what_was_measured_and_the_mean(tiny_data: CategoryData, tmp_path: Path) -> None:
    first = run(tiny_data, tmp_path, methods=("padim",), seeds=(0,))[0]
    results = [
        replace(first, image_auroc=0.5, pixel_auroc=None, pro=None),
        replace(first, seed=1, image_auroc=0.75),
    ]
    text = baseline_table(results).markdown()
    assert "pill (synthetic), 64 px, test_resnet (random weights)" in text
    assert "not available" in text
    assert "0.6250" in text


def test_what_cannot_be_measured_is_told(tiny_data: CategoryData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown method 'cfa'; expected some of padim, patchcore"):
        run(tiny_data, tmp_path, methods=("padim", "cfa"))
    with pytest.raises(DataError, match="has no test images; put them into"):
        run(replace(tiny_data, test=()), tmp_path)
    assert list(tmp_path.iterdir()) == []
