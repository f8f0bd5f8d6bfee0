"""The teacher's features, kept in memory or in a file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from train.errors import StorageError, TrainingError
from train.fitting import features
from train.fitting.features import TeacherFeatures, compute_teacher_features
from train.method.backbones import Backbone, build_backbone
from train.method.pretrained_weights import random_weights

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]
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


def test_features_that_fit_nowhere_are_told_before_anything_is_computed(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped file that the disk turns out not to hold ends the process with a Bus error."""
    monkeypatch.setattr(features, "MEMORY_SHARE", 0)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("computed"))
    with pytest.raises(
        StorageError,
        match=rf"^Teacher features need 0\.0 GiB in a file under {tmp_path}, where 0\.0 GiB are free "
        r"\(No space left on device\); make room, train with --runs-dir on another disk, or ",
    ):
        compute(teacher, tmp_path)
    assert list(tmp_path.iterdir()) == []


NO_PLACE = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from train.fitting import features
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the kernel refuses to write more, as on a full disk
features.MEMORY_SHARE = 0
for array in features._allocate([(10, 10, 10, 10), (100, 10, 10, 10)], Path(sys.argv[1])):
    array[:] = 0
"""


def test_the_place_on_the_disk_is_taken_before_it_is_written_to(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_PLACE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f"StorageError: Teacher features need 0.0 GiB in a file under {tmp_path}" in done.stderr
    assert "(File too large); make room" in done.stderr


def test_a_file_system_that_cannot_reserve_is_written_to(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    expected = compute(teacher, tmp_path)
    monkeypatch.setattr(features, "MEMORY_SHARE", 0)
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    for ours, theirs in zip(compute(teacher, tmp_path).stages, expected.stages, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    teacher = build_backbone("test_resnet", random_weights("test_resnet", seed=0)).eval()
    teacher.std.zero_()
    with pytest.raises(
        TrainingError, match=r"^The teacher's features of images 1 to 16 of 19 are not finite;"
    ):
        compute(teacher, tmp_path)
