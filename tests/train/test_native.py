"""Pictures at their own size, trained on in crops and judged whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_repository.picture_strips import strips
from tests.conftest import CATEGORY, FitTiny
from train.calibration.shared_residuals import see_whole
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData, read_category
from train.data.pictures.loading import load_images
from train.data.sources.synthetic.dataset import render_category
from train.errors import ConfigError, DataError
from train.evaluation.evaluate import compute_maps, evaluate
from train.method import judging
from train.method.receptive_field import chain_margin
from train.support.devices import Runtime

HEIGHT, WIDTH = 96, 150  # filled up to 160
CPU = Runtime("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    root = render_category(
        tmp_path_factory.mktemp("native"),
        category=CATEGORY,
        image_size=(HEIGHT, WIDTH),
        n_train=8,
        n_test_good=2,
        n_per_defect=1,
    )
    return read_category(root, dataset="synthetic", category=CATEGORY)


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory, data: CategoryData, fit_tiny: FitTiny) -> Path:
    return fit_tiny(
        data, tmp_path_factory.mktemp("run"), student="test_resnet", image_size="native", crop_size=64
    )


def test_a_test_set_is_judged_at_its_own_size(checkpoint_path: Path, data: CategoryData) -> None:
    evaluation = evaluate(load_checkpoint(checkpoint_path), data, runtime=CPU)
    assert evaluation is not None
    verdict, n_images = evaluation.judged.verdict, len(data.test)
    assert verdict.anomaly_map.shape == (n_images, HEIGHT, 160)
    assert evaluation.judged.shown is not None
    assert (
        evaluation.judged.shown.sum() == n_images * HEIGHT * WIDTH
    )  # what is filled counts for no pixel measure
    assert load_checkpoint(checkpoint_path).calibration.picture_only
    assert not verdict.anomaly_map[~evaluation.judged.shown].any()
    assert evaluation.judged.masks is not None
    for image, mask in zip(evaluation.judged.test, evaluation.judged.masks, strict=True):
        if image.mask_path is not None:
            drawn = np.asarray(Image.open(image.mask_path)) != 0
            np.testing.assert_array_equal(mask[:, :WIDTH], drawn)
        assert not mask[:, WIDTH:].any()
    assert 0 <= evaluation.metrics["pro"] <= 1


def test_one_checkpoint_judges_other_sizes_by_the_same_number_of_pixels(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    assert checkpoint.calibration.score_pixels == round(checkpoint.config.score_share * 64**2)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 224, 3), np.uint8)
    maps = compute_maps(checkpoint, pictures, device=CPU.torch_device, what="Test")
    assert maps.shape == (1, 64, 224)


def test_what_was_chosen_follows_from_good_images_alone(
    tmp_path: Path, checkpoint_path: Path, data: CategoryData, fit_tiny: FitTiny
) -> None:
    poisoned = replace(data, test=(replace(data.test[0], defect="poison"),) * 3)
    again = fit_tiny(poisoned, tmp_path / "run", student="test_resnet", image_size="native", crop_size=64)
    first, second = load_checkpoint(checkpoint_path), load_checkpoint(again)
    assert second.calibration == first.calibration
    assert second.weights_id == first.weights_id


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((64, 96), (96, 64)), strict=True):
        Image.new("RGB", size, "grey").save(path)
    with pytest.raises(
        DataError, match=r"a.png is 64 x 96 pixels and .*b.png 96 x 64; expected pictures of one size"
    ):
        load_images(paths, image_size=-1, strict=True)


def test_pictures_that_the_server_refuses_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 31), "grey").save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png is 64 x 31 pixels; expected sides of at least 32 where"):
        load_images([tmp_path / "a.png"], image_size=-1, strict=True)


def test_large_pictures_are_judged_in_strips_without_a_seam(
    checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 640, 64, 3), np.uint8)
    whole = compute_maps(checkpoint, pictures, device=CPU.torch_device, what="Whole")
    monkeypatch.setattr(judging, "STRIP_PIXELS", 320 * 64)
    margin = chain_margin(checkpoint.teacher, checkpoint.student)
    assert len(strips(640, 64, margin=margin, pixels=320 * 64)) > 1
    joined = compute_maps(checkpoint, pictures, device=CPU.torch_device, what="In strips")
    np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-5)


def test_what_is_usual_is_seen_in_strips_too(checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    picture = np.random.default_rng(0).integers(0, 256, (640, 64, 3), np.uint8)

    def seen() -> list[torch.Tensor]:
        with torch.inference_mode():
            pairs = see_whole(checkpoint.teacher, checkpoint.student, picture, CPU.torch_device)
        return [features for pair in pairs for features in pair]

    whole = seen()
    assert [features.shape[1] for features in whole[::2]] == [160 * 16, 80 * 8, 40 * 4]
    monkeypatch.setattr(judging, "STRIP_PIXELS", 320 * 64)
    for joined, features in zip(seen(), whole, strict=True):
        torch.testing.assert_close(joined, features, rtol=1e-4, atol=1e-5)


def test_networks_that_look_at_whole_pictures_are_refused_before_training(
    tmp_path: Path, data: CategoryData, fit_tiny: FitTiny
) -> None:
    with pytest.raises(ConfigError, match="test_efficientnet looks at whole pictures"):
        fit_tiny(data, tmp_path / "run", image_size="native", crop_size=64, student="test_efficientnet")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
