"""Triton's rules for the platforms whose server is not here: what is published keeps them, each fault is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.serving import steps as configs
from export.serving.model_files import RULES, ModelFile, broken_pins, broken_rules
from export.serving.steps import Platform
from tests.conftest import CATEGORY

SIZE, CHANNELS = 64, (32, 48, 192)
PLATFORMS = [
    Platform("onnxruntime"),
    Platform("onnxruntime", threads=2),
    Platform("onnxruntime", "cuda"),
    Platform("onnxruntime", "tensorrt"),
    Platform("tensorrt"),
]


def student_file(*, min_batch: int = 1, max_batch: int = 8) -> ModelFile:
    return ModelFile(
        inputs=(configs.image_spec(SIZE), *configs.feature_specs(SIZE, CHANNELS)),
        outputs=(*configs.distance_specs(SIZE), configs.RELEASE_ID),
        min_batch=min_batch,
        max_batch=max_batch,
    )


def student_config(platform: Platform, *, max_batch_size: int = 8) -> pb.ModelConfig:
    file = student_file()
    return configs.backbone_config(
        "pill_student",
        inputs=file.inputs,
        outputs=file.outputs,
        versions=[3],
        platform=platform,
        max_batch_size=max_batch_size,
    )


@pytest.mark.parametrize("max_batch_size", [1, 6, 8])
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: f"{platform.name}-{platform.provider}")
def test_what_is_published_keeps_every_rule(platform: Platform, max_batch_size: int) -> None:
    assert broken_rules(student_config(platform, max_batch_size=max_batch_size), student_file()) == []


def test_an_onnx_file_says_what_it_takes(tiny_build: Path) -> None:
    file = ModelFile.of_onnx(tiny_build / CATEGORY / "student.onnx")
    assert file.inputs[0] == configs.image_spec(SIZE)
    assert set(file.outputs) == {*configs.distance_specs(SIZE), configs.RELEASE_ID}
    assert (file.min_batch, file.max_batch > 1000) == (1, True)


def no_graphs(config: pb.ModelConfig) -> None:
    config.optimization.cuda.graphs = False


def no_full_batch_graph(config: pb.ModelConfig) -> None:
    del config.optimization.cuda.graph_spec[-1]


def graph_of_another_shape(config: pb.ModelConfig) -> None:
    config.optimization.cuda.graph_spec[0].input["image"].dim[0] += 1


def on_a_cpu(config: pb.ModelConfig) -> None:
    config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_CPU


def every_version(config: pb.ModelConfig) -> None:
    config.version_policy.latest.num_versions = 3


def no_bound(config: pb.ModelConfig) -> None:
    config.dynamic_batching.default_queue_policy.max_queue_size = 0


def cold(config: pb.ModelConfig) -> None:
    del config.model_warmup[:]


def half_features(config: pb.ModelConfig) -> None:
    config.input[1].data_type = pb.TYPE_FP16


def another_file(config: pb.ModelConfig) -> None:
    config.default_model_filename = "student.onnx"


def spinning(config: pb.ModelConfig) -> None:
    config.parameters["session.intra_op.allow_spinning"].string_value = "1"


def no_threads(config: pb.ModelConfig) -> None:
    del config.parameters["intra_op_thread_count"]


def many_batches(config: pb.ModelConfig) -> None:
    config.max_batch_size = 16


def openvino(config: pb.ModelConfig) -> None:
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="openvino")


def another_backend(config: pb.ModelConfig) -> None:
    config.backend = "pytorch"


@pytest.mark.parametrize(
    ("platform", "fault", "sentence"),
    [
        (Platform("tensorrt"), no_graphs, "CUDA graphs are off"),
        (Platform("tensorrt"), no_full_batch_graph, "of batches [1, 2, 4], not of 1 and 8"),
        (Platform("tensorrt"), graph_of_another_shape, "the CUDA graph of batch 1 is not one of the inputs"),
        (Platform("tensorrt"), on_a_cpu, "its instances are KIND_CPU, and it runs on KIND_GPU alone"),
        (Platform("onnxruntime", "cuda"), on_a_cpu, "its instances are KIND_CPU"),
        (Platform("tensorrt"), every_version, "its versions are not named one by one"),
        (Platform("tensorrt"), no_bound, "its queue has no bound"),
        (Platform("tensorrt"), cold, "no warm-up runs it with all of its inputs"),
        (Platform("tensorrt"), half_features, "input teacher_1 FP16 [32, 16, 16] is not in the file"),
        (Platform("tensorrt"), many_batches, "batches of 1 to 16 are configured, and the file takes 1 to 8"),
        (Platform("tensorrt"), another_backend, "backend 'pytorch' is none of ['onnxruntime', 'tensorrt']"),
        (Platform("onnxruntime"), another_file, "opens model.onnx, and the file is 'student.onnx'"),
        (Platform("onnxruntime"), spinning, "parameter 'session.intra_op.allow_spinning' is unknown"),
        (Platform("onnxruntime"), no_threads, "the threads of an operator are not set"),
        (Platform("onnxruntime", "cuda"), openvino, "accelerator 'openvino' is none of ['cuda', 'tensorrt']"),
    ],
)
def test_each_fault_is_told(
    platform: Platform, fault: Callable[[pb.ModelConfig], None], sentence: str
) -> None:
    config = student_config(platform)
    fault(config)
    assert any(sentence in told for told in broken_rules(config, student_file()))


def test_a_profile_that_starts_above_one_is_refused() -> None:
    told = broken_rules(student_config(Platform("tensorrt")), student_file(min_batch=2))
    assert len(told) == 1
    assert told[0].startswith("batches of 1 to 8 are configured, and the file takes 2 to 8 (https://")


def test_every_rule_names_its_source() -> None:
    assert all(rule.source.startswith("https://github.com/triton-inference-server/") for rule in RULES)
    assert len({rule.says for rule in RULES}) == len(RULES)


def test_ensembles_are_pinned_to_versions_that_are_loaded() -> None:
    models = {"pill_student": student_config(Platform("tensorrt"))}

    def ensemble(version: int) -> pb.ModelConfig:
        config = pb.ModelConfig(name="pill")
        config.ensemble_scheduling.step.add(model_name="pill_student", model_version=version)
        return config

    assert broken_pins(ensemble(3), models) == []
    assert broken_pins(ensemble(2), models) == [
        "pill is pinned to version 2 of pill_student, which loads [3]"
    ]
    assert broken_pins(ensemble(-1), models) == ["pill takes whatever version of pill_student is newest"]
