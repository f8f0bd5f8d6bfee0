"""anomalib's models as they are used here: the same teacher, the same smoothing, one seed; what they find."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F

from tests.conftest import TINY_OPTIONS
from train.config import FitConfig, fit_config
from train.errors import ConfigError, DataError
from train.evaluation.metrics import auroc
from train.method.backbones import Backbone
from train.method.student import load_teacher
from train.studies.baselines.anomalib_models import (
    METHODS,
    Smoothing,
    anomalib_version,
    fit_anomalib,
    judge_with_anomalib,
)

CPU = torch.device("cpu")
CONFIG = fit_config("edge", TINY_OPTIONS)
NOT_SMOOTHED = fit_config("edge", TINY_OPTIONS | {"smoothing_sigma": 0.0, "pool_size": 1})


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    return load_teacher(CONFIG, weights_dir=None)[0]


def noisy_images(n_images: int, *, seed: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(seed).normal(128, 12, size=(n_images, 64, 64, 3))
    return values.round().clip(0, 255).astype(np.uint8)


def judged(
    method: str, teacher: Backbone, config: FitConfig, *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Fitted on 30 noisy images; ten others, a white square in the last five. Maps, scores and masks."""
    test, masks = noisy_images(10, seed=1), np.zeros((10, 64, 64), bool)
    masks[5:, 24:40, 8:24] = True
    test[masks] = 255
    model = fit_anomalib(method, teacher, noisy_images(30, seed=0), config=config, seed=seed, device=CPU)
    maps, scores = judge_with_anomalib(model, test, device=CPU)
    return maps, scores, masks


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_defect_is_found_and_located(method: str, teacher: Backbone) -> None:
    maps, scores, masks = judged(method, teacher, CONFIG)
    assert (maps.shape, maps.dtype, scores.shape, scores.dtype) == (
        (10, 64, 64),
        np.float32,
        (10,),
        np.float32,
    )
    assert auroc(scores, masks.any(axis=(1, 2))) == 1
    pixel = auroc(maps.ravel(), masks.ravel())
    assert pixel is not None
    assert pixel > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_all_that_is_drawn_and_nothing_else_changes(method: str, teacher: Backbone) -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    first = judged(method, teacher, CONFIG)
    drawn_after = np.random.random(), torch.rand(1).item()
    np.random.seed(6)
    torch.manual_seed(6)
    second = judged(method, teacher, CONFIG)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (judged(method, teacher, CONFIG, seed=1)[0] != first[0]).any()
    np.random.seed(5)
    torch.manual_seed(5)
    assert drawn_after == (np.random.random(), torch.rand(1).item())


def test_the_environment_of_later_processes_is_as_before() -> None:
    """In a process of its own: a module is imported once, and it is the import that changes the environment."""
    program = (
        "import os\n"
        "from tests.train.studies.baselines import test_anomalib_models as tests\n"
        "teacher = tests.load_teacher(tests.CONFIG, weights_dir=None)[0]\n"
        "inherited = dict(os.environ)\n"
        "tests.judged('padim', teacher, tests.CONFIG)\n"
        "print(dict(os.environ) == inherited, 'LD_LIBRARY_PATH' in os.environ)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[4],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True False\n"


def own_model(method: str, teacher: Backbone) -> Any:
    """anomalib's model with anomalib's extractor, given the teacher's weights; maps are not smoothed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomalib.models.image.padim.torch_model import PadimModel
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    layers = list(teacher.body.feature_info.out_indices)
    if method == "padim":
        n_features = min(100, sum(teacher.channels))
        model = PadimModel(backbone="test_resnet", layers=layers, pre_trained=False, n_features=n_features)
    else:
        model = PatchcoreModel(backbone="test_resnet", layers=layers[1:], pre_trained=False, num_neighbors=9)
    weights = {name.removeprefix("model."): value for name, value in teacher.body.state_dict().items()}
    extractor = model.feature_extractor.feature_extractor
    assert not extractor.load_state_dict(weights, strict=False).missing_keys
    model.anomaly_map_generator.blur = nn.Identity()
    return model


@pytest.mark.parametrize("method", METHODS)
def test_all_but_the_network_and_the_smoothing_is_anomalibs(method: str, teacher: Backbone) -> None:
    """The same maps and scores as anomalib's model with its own extractor, given the same weights."""

    def normalised(images: NDArray[np.uint8]) -> torch.Tensor:
        pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2)
        return (pixels - teacher.mean) / teacher.std

    good, test = noisy_images(30, seed=0), noisy_images(4, seed=1)
    with torch.random.fork_rng(), torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        np.random.seed(3)
        model = own_model(method, teacher).train()
        model(normalised(good))
        if method == "padim":
            model.fit()
        else:
            model.subsample_embedding(0.01)
        expected = model.eval()(normalised(test))
    ours = fit_anomalib(method, teacher, good, config=NOT_SMOOTHED, seed=3, device=CPU)
    maps, scores = judge_with_anomalib(ours, test, device=CPU)
    np.testing.assert_allclose(maps, expected.anomaly_map[:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores, expected.pred_score.reshape(-1), rtol=1e-3)


def test_maps_are_smoothed_as_by_scipy_and_torch() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).random((2, 1, 64, 64), np.float32))
    blurred = torch.from_numpy(
        np.stack([[gaussian_filter(one[0], sigma=CONFIG.smoothing_sigma)] for one in maps.numpy()])
    )
    expected = F.avg_pool2d(blurred, 5, stride=1, padding=2, count_include_pad=False)
    torch.testing.assert_close(Smoothing(CONFIG)(maps), expected, rtol=1e-4, atol=1e-6)


def test_without_anomalib_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs the package anomalib, .*; pip install -c constraints\.txt '"
    ):
        anomalib_version()


def test_too_few_patches_for_a_coreset_are_said(teacher: Backbone) -> None:
    with pytest.raises(
        DataError, match=r"keeps 1 in 100 of 64 patches of 1 good images, which is none; give"
    ):
        fit_anomalib("patchcore", teacher, noisy_images(1, seed=0), config=CONFIG, seed=0, device=CPU)
