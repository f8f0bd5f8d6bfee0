"""Threads and instances: chosen from the machine, overridden, and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.releases.repository import Repository
from export.serving.backbones import MAX_THREADS, Concurrency, Platform
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny
from train.support.cores import usable_cores


@pytest.mark.parametrize(
    ("platform", "shared", "cores", "expected"),
    [
        (Platform(), True, 1, Concurrency(2, 1)),
        (Platform(), True, 2, Concurrency(2, 2)),
        (Platform("onnxruntime"), False, 8, Concurrency(1, 8)),
        (Platform(), True, 32, Concurrency(4, 8)),
        (Platform(), False, 32, Concurrency(2, 8)),
        (Platform("onnxruntime", "cuda"), False, 16, Concurrency(2, 0)),
        (Platform("tensorrt"), True, 1, Concurrency(2, 0)),
    ],
)
def test_the_machine_decides(
    platform: Platform, shared: bool, cores: int, expected: Concurrency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.serving.backbones.usable_cores", lambda: cores)
    assert platform.concurrency(shared=shared) == expected


def test_what_is_asked_for_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.serving.backbones.usable_cores", lambda: 32)
    assert Platform(threads=3, instances=5).concurrency(shared=True) == Concurrency(5, 3)
    assert Platform("tensorrt", instances=3).concurrency(shared=True).instances == 3


@pytest.mark.parametrize("platform", [Platform(), Platform("onnxruntime"), Platform(threads=3, instances=2)])
def test_they_are_written_into_both_backbones(tiny_build: Path, tmp_path: Path, platform: Platform) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository, platform=platform)
    for model in ("teacher_test_resnet_64", "pill_student"):
        config = Repository(repository).read_config(model)
        assert config is not None
        threads = platform.threads or min(usable_cores(), MAX_THREADS)
        assert config.parameters["intra_op_thread_count"].string_value == str(threads)
        assert sum(group.count for group in config.instance_group) == (
            platform.instances or platform.concurrency(shared="teacher" in model).instances
        )
    fusion = Repository(repository).read_config("distance_fusion")
    assert fusion is not None
    assert [group.count for group in fusion.instance_group] == [1, 1]


def test_a_gpu_has_two_instances_and_no_threads(tiny_build: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository, platform=Platform("onnxruntime", "cuda"))
    config = Repository(repository).read_config("pill_student")
    assert config is not None
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_GPU)
    assert "intra_op_thread_count" not in config.parameters
