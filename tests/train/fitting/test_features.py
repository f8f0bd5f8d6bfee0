"""The teacher's features, kept in memory or in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.fitting import features
from train.fitting.features import TeacherFeatures, compute_teacher_features
from train.method.backbones import Backbone, build_backbone
from train.method.pretrained_weights import random_weights

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), np.uint8)  # a batch of 16 and a rest


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    return build_backbone("test_resnet", random_weights("test_resnet", seed=0)).eval()


def compute(teacher: Backbone, scratch_dir: Path) -> TeacherFeatures:
    return compute_teacher_features(teacher, IMAGES, scratch_dir=scratch_dir, device=CPU)


def test_features_are_the_teachers_in_the_order_asked_for(teacher: Backbone, tmp_path: Path) -> None:
    indices = np.array([17, 0, 5])
    batch = compute(teacher, tmp_path).batch(indices, CPU)
    with torch.inference_mode():
        expected = teacher(torch.from_numpy(IMAGES[indices]))
    for ours, theirs, side in zip(batch, expected, (8, 4, 2), strict=True):
        assert ours.shape == (3, theirs.shape[1], side, side)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_features_in_a_file_equal_those_in_memory(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_memory = compute(teacher, tmp_path)
    assert not any(isinstance(stage, np.memmap) for stage in in_memory.stages)
    assert "kept in a file" not in capsys.readouterr().err
    monkeypatch.setattr(features, "MEMORY_SHARE", 0)
    in_file = compute(teacher, tmp_path)
    assert all(isinstance(stage, np.memmap) for stage in in_file.stages)
    printed = " ".join(capsys.readouterr().err.split())
    assert "kept in a file under" in printed
    for ours, theirs in zip(in_file.stages, in_memory.stages, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    indices = np.array([3, 18])
    batches = (stored.batch(indices, CPU) for stored in (in_file, in_memory))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*batches, strict=True))
    assert list(tmp_path.iterdir()) == []  # the file has no name
