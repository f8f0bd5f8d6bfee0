"""Wherever a GPU's features are kept, they are those of the machine's memory; here on a CPU too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.config import fit_config
from train.errors import TrainingError
from train.fitting.features import GoodImages, TeacherFeatures, compute_teacher_features, load_batches
from train.fitting.gpu.room import STORES, Place
from train.method.backbones import Backbone, build_backbone
from train.method.pretrained_weights import random_weights

IMAGES = np.random.default_rng(0).integers(
    0, 256, (21, 32, 32, 3), np.uint8
)  # more than the teacher sees at once


@pytest.fixture
def teacher() -> Backbone:
    return build_backbone("test_resnet", random_weights("test_resnet", seed=0)).eval().requires_grad_(False)


def in_memory(teacher: Backbone, tmp_path: Path, device: torch.device) -> TeacherFeatures:
    return compute_teacher_features(teacher, IMAGES, scratch_dir=tmp_path, device=device)


@pytest.mark.parametrize("place", STORES)
def test_batches_are_those_of_features_in_memory(
    place: Place, device: torch.device, teacher: Backbone, tmp_path: Path
) -> None:
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = in_memory(teacher, tmp_path, device)
    kept = STORES[place](teacher, IMAGES, device)
    config = fit_config("edge", {"batch_size": 4, "drop_last": False, "image_size": 32})
    names = [""] * len(IMAGES)
    # Two epochs and a half, each with a rest of 1; resumed in the rest.
    batches, expected = (
        load_batches(GoodImages(IMAGES, features, names), config=config, steps=range(5, 15), device=device)
        for features in (kept, known)
    )
    n_seen = 0
    for ours, theirs in zip(batches, expected, strict=True):
        assert ours.indices.tolist() == theirs.indices.tolist()
        assert ours.image.device == device
        assert torch.equal(ours.image, theirs.image)
        for feature, reference in zip(ours.teacher_features, theirs.teacher_features, strict=True):
            assert feature.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-4)
        n_seen += 1
    assert n_seen == 10
    picked = kept.batch(np.array([20, 3]), device)
    for feature, stage in zip(picked, known.stages, strict=True):
        reference = torch.from_numpy(stage[[20, 3]]).permute(0, 3, 1, 2).to(device)
        torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", STORES)
def test_statistics_and_slices_are_those_of_features_in_memory(
    place: Place, device: torch.device, teacher: Backbone, tmp_path: Path
) -> None:
    teacher.to(device)
    known, kept = in_memory(teacher, tmp_path, device), STORES[place](teacher, IMAGES, device)
    for ours, theirs in ((kept.means(), known.means()), (kept.stds(), known.stds())):
        for value, reference in zip(ours, theirs, strict=True):
            assert value.device.type == "cpu"
            torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)
    for stage, reference in zip(kept.stages, known.stages, strict=True):
        assert len(stage) == len(IMAGES)
        for images in (slice(16, 32), slice(0, 64), slice(3)):
            np.testing.assert_allclose(stage[images], reference[images], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", STORES)
def test_features_that_are_not_finite_are_refused(place: Place, teacher: Backbone) -> None:
    teacher.std.zero_()
    with pytest.raises(
        TrainingError, match=r"^The teacher's features of images 1 to 16 of 21 are not finite;"
    ):
        STORES[place](teacher, IMAGES, torch.device("cpu"))
