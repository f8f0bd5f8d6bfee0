"""Threads and instances: chosen from the machine, overridden, and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.manifest import read_manifest
from export.releases.release import Release
from export.releases.repository import Repository, parameters_of
from export.serving.backbones import MAX_THREADS, Concurrency, Platform, backbone_config
from export.serving.backend_rules import CUDA_KEYS
from export.tensors import distance_specs, image_spec
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny
from train.support.cores import usable_cores


@pytest.mark.parametrize(
    ("platform", "shared", "cores", "expected"),
    [
        (Platform(), True, 1, Concurrency(2, 1)),
        (Platform(), True, 2, Concurrency(2, 2)),
        (Platform("onnxruntime"), False, 2, Concurrency(2, 2)),
        (Platform("onnxruntime"), False, 32, Concurrency(2, 32)),  # the pool's threads
        (Platform("onnxruntime"), True, 32, Concurrency(4, 32)),
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


@pytest.mark.parametrize(
    "platform", [Platform(), Platform(threads=3, instances=2), Platform("onnxruntime", threads=3)]
)
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


def parameters(platform: Platform, *, memory_arena: bool = True) -> dict[str, str]:
    config = backbone_config(
        "pill_student",
        inputs=[image_spec(64)],
        outputs=distance_specs(64),
        versions=[1],
        platform=platform,
        memory_arena=memory_arena,
    )
    return parameters_of(config)


def test_the_pools_threads_are_the_servers_unless_they_are_stated() -> None:
    assert "intra_op_thread_count" not in parameters(Platform("onnxruntime"))
    assert parameters(Platform("onnxruntime", threads=3))["intra_op_thread_count"] == "3"


def test_weights_lie_beside_the_arena_and_small_networks_have_none() -> None:
    beside = "session.use_device_allocator_for_initializers"
    kept, given_back = (parameters(Platform("onnxruntime"), memory_arena=kept) for kept in (True, False))
    assert (kept[beside], "enable_mem_arena" in kept) == ("1", False)
    assert (given_back[beside], given_back["enable_mem_arena"]) == ("1", "0")
    for platform in (Platform(), Platform("onnxruntime", "cuda"), Platform("tensorrt")):
        assert beside not in parameters(platform, memory_arena=False)


@pytest.mark.parametrize(
    ("teacher", "student", "without_arena"),
    [
        ("tf_efficientnet_lite2", "tf_efficientnet_lite0", {"teacher", "student"}),
        ("tf_efficientnet_lite2", "resnext50_32x4d", {"teacher"}),  # shared: whoever publishes last, it stays
        ("wide_resnet50_2", "resnext50_32x4d", set()),
    ],
)
def test_the_networks_of_edge_have_no_arena(
    tiny_build: Path, tmp_path: Path, teacher: str, student: str, without_arena: set[str]
) -> None:
    manifest = read_manifest(tiny_build / CATEGORY)
    config = manifest.config.model_copy(update={"teacher": teacher, "student": student})
    release = Release(
        manifest.model_copy(update={"config": config}),
        tiny_build / CATEGORY,
        Repository(tmp_path),
        Platform("onnxruntime"),
        TargetServer(),
    )
    found = {step for step, each in release.step_configs().items() if "enable_mem_arena" in each.parameters}
    assert found == without_arena


def test_the_cuda_provider_is_configured_where_the_backend_reads_it() -> None:
    """As the backend's README has it: the values are numbers there."""
    for provider in ("cuda", "tensorrt"):
        found = parameters(Platform("onnxruntime", provider))
        assert {name: found[name] for name in CUDA_KEYS} == {
            "cudnn_conv_algo_search": "1",
            "gpu_mem_limit": "18446744073709551615",
            "arena_extend_strategy": "0",
            "do_copy_in_default_stream": "1",
        }
