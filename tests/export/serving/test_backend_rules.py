"""Each rule that Triton does not tell is broken once and found; what is published keeps all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.releases.repository import Repository
from export.serving import steps
from export.serving.backbones import Platform, backbone_config
from export.serving.backend_rules import broken_rules, lone_instance
from export.tensors import distance_specs, image_spec
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny

CPU, CUDA = Platform("onnxruntime"), Platform("onnxruntime", "cuda")
PLATFORMS = [Platform(), CPU, CUDA, Platform("onnxruntime", "tensorrt"), Platform("tensorrt")]


def student(platform: Platform) -> pb.ModelConfig:
    return backbone_config(
        "pill_student",
        inputs=[image_spec(64)],
        outputs=distance_specs(64),
        versions=[1],
        platform=platform,
        memory_arena=False,
    )


@pytest.mark.parametrize(
    "config",
    [
        *map(student, PLATFORMS),
        steps.distance_fusion_config(),
        steps.image_decoder_config(64, bit_depth=12),
        steps.foreground_config(64),
    ],
)
def test_what_is_published_keeps_all_rules(config: pb.ModelConfig) -> None:
    assert broken_rules(config) == []
    assert lone_instance(config) is None


def shares_its_session(config: pb.ModelConfig) -> None:
    config.parameters["share_session_between_instances"].string_value = "1"


def of_no_kind(config: pb.ModelConfig) -> None:
    config.instance_group[1].kind = pb.ModelInstanceGroup.KIND_AUTO


def no_group(config: pb.ModelConfig) -> None:
    config.ClearField("instance_group")


@pytest.mark.parametrize(
    ("platform", "fault", "sentence"),
    [
        (CPU, shares_its_session, "parameter share_session_between_instances is read by nobody"),
        (CPU, of_no_kind, "Triton would start it on every GPU; expected KIND_CPU or KIND_GPU"),
        (Platform(), of_no_kind, "Triton would start it on every GPU"),
        (Platform(), no_group, "Triton would start it on every GPU"),
    ],
)
def test_a_broken_rule_is_a_sentence(
    platform: Platform, fault: Callable[[pb.ModelConfig], None], sentence: str
) -> None:
    config = student(platform)
    fault(config)
    assert any(sentence in found for found in broken_rules(config))


def test_parameters_of_the_cuda_accelerator_are_overwritten() -> None:
    """As this project published until now."""
    config = student(CUDA)
    del config.parameters["do_copy_in_default_stream"]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerator.parameters["do_copy_in_default_stream"] = "1"
    assert broken_rules(config) == [
        "do_copy_in_default_stream of accelerator cuda is overwritten; expected among the model's parameters",
        "do_copy_in_default_stream is missing among the model's parameters, and the backend would take its default",
    ]


def test_an_exhaustive_search_wants_a_warm_up_of_every_batch() -> None:
    config = student(CUDA)
    config.parameters["cudnn_conv_algo_search"].string_value = "0"
    (sentence,) = broken_rules(config)
    assert sentence.startswith("cudnn_conv_algo_search is 0 (EXHAUSTIVE), which tries every algorithm")
    for size in range(1, config.max_batch_size + 1):
        config.model_warmup.add(name=f"size_{size}", batch_size=size)
    assert broken_rules(config) == []


def test_a_bounded_queue_wants_two_instances() -> None:
    config = student(CPU)
    del config.instance_group[1]
    assert str(lone_instance(config)).startswith("pill_student has one instance behind a bounded queue")
    config.dynamic_batching.ClearField("default_queue_policy")
    assert lone_instance(config) is None
    policy = config.dynamic_batching.default_queue_policy
    policy.default_timeout_microseconds = 1000
    assert lone_instance(config) is not None


def test_one_instance_is_refused_on_tritons_own_backend_and_told_on_python(
    tiny_build: Path, tmp_path: Path
) -> None:
    build, alone = (
        tiny_build / CATEGORY,
        "has one instance behind a bounded queue, where a request now and then",
    )
    refused = copy_backends(tmp_path / "refused")
    before = sorted(refused.rglob("*"))
    with pytest.raises(
        PublishError,
        match=rf"^teacher_\w+ {alone} waits .*; give --instances 2 or more; nothing is published\.$",
    ):
        publish_tiny(build, refused, platform=Platform("onnxruntime", instances=1))
    assert sorted(refused.rglob("*")) == before
    said = publish_tiny(build, copy_backends(tmp_path / "told"), platform=Platform(instances=1))
    assert f"; pill_student {alone}" in said


def test_publishing_says_how_the_pool_is_started(tiny_build: Path, tmp_path: Path) -> None:
    repository, build = copy_backends(tmp_path / "models"), tiny_build / CATEGORY
    said = publish_tiny(build, repository, platform=CPU)
    assert "onnxruntime,enable-global-threadpool=1" in said
    assert "onnxruntime,intra_op_thread_count=<its cores>" in said
    assert Repository(repository).pool_threads() == 0
    said = publish_tiny(build, repository, platform=Platform("onnxruntime", threads=3))
    assert "onnxruntime,intra_op_thread_count=3, " in said
    assert "MALLOC_ARENA_MAX=2" in said
    assert "threadpool" not in publish_tiny(build, copy_backends(tmp_path / "python"))
