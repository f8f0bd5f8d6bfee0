"""config.pbtxt of every model: all of them are bounded and warmed up."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import tensors
from export.serving import steps as configs
from export.serving.backbones import Platform, backbone_config
from export.serving.ensembles import encoded_steps, ensemble_config, judging_steps
from export.tensors import ENCODED_IMAGE, ORIGINAL_SIZE, TensorSpec, distance_specs, feature_specs, image_spec
from model_repository.distance_fusion import map_fusion
from train.method import backbones

CHANNELS = (24, 48, 120)


def backbone(platform: str = "python", size: int = 128) -> pb.ModelConfig:
    return backbone_config(
        configs.teacher_name("tf_efficientnet_lite2", size),
        inputs=[image_spec(size)],
        outputs=feature_specs(size, CHANNELS),
        versions=[2, 3],
        platform=Platform(platform),
    )


def steps(config: pb.ModelConfig) -> list[tuple[str, int]]:
    return [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]


@pytest.mark.parametrize(
    "config",
    [
        backbone(),
        backbone("onnxruntime"),
        configs.distance_fusion_config(),
        configs.image_decoder_config(128),
        configs.foreground_config(128),
    ],
    ids=lambda config: f"{config.name}-{config.backend}",
)
def test_every_step_has_its_instances_a_bounded_queue_and_a_warm_up(config: pb.ModelConfig) -> None:
    assert [(group.count, group.rate_limiter.priority) for group in config.instance_group] == [
        (1, 0),
        (1, configs.SPARE_PRIORITY),
    ]
    # Of no kind Triton would start them once more on every GPU.
    assert {group.kind for group in config.instance_group} == {pb.ModelInstanceGroup.KIND_CPU}
    assert config.HasField("dynamic_batching")
    # A size alone: a queue policy with a time makes the server's batcher lose requests' wake-ups.
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert config.model_warmup
    for warm_up in config.model_warmup:
        assert warm_up.inputs.keys() == {tensor.name for tensor in config.input if not tensor.optional}
        assert warm_up.batch_size <= config.max_batch_size


def test_text_reads_back_as_the_same_configuration() -> None:
    config = backbone()
    text = configs.to_text(config)
    assert text.startswith("# Written by")
    assert text_format.Parse(text, pb.ModelConfig()) == config


def test_platforms_differ_in_the_backend_alone() -> None:
    ours, theirs = backbone("python"), backbone("onnxruntime")
    assert (ours.backend, theirs.backend) == ("python", "onnxruntime")
    assert theirs.default_model_filename == "model.onnx"
    for config in (ours, theirs):
        # A session of the Python platform is told its threads in the file, ONNX Runtime's backend its memory.
        for field in ("backend", "default_model_filename", "parameters"):
            config.ClearField(field)
    assert ours == theirs


def test_shapes_of_the_design_at_256() -> None:
    def shapes(specs: list[TensorSpec]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {spec.name: (spec.type, spec.shape) for spec in specs}

    assert image_spec(256) == TensorSpec("image", "UINT8", (256, 256, 3))
    assert shapes(feature_specs(256, (256, 512, 1024))) == {
        "teacher_1": ("FP32", (256, 64, 64)),
        "teacher_2": ("FP32", (512, 32, 32)),
        "teacher_3": ("FP32", (1024, 16, 16)),
    }
    assert shapes(distance_specs(256)) == {
        "distance_1": ("FP32", (64, 64)),
        "distance_2": ("FP32", (32, 32)),
        "distance_3": ("FP32", (16, 16)),
    }
    assert shapes(configs.verdict_specs(256)) == {
        "anomaly_map": ("FP32", (256, 256)),
        "pred_score": ("FP32", (1,)),
        "pred_label": ("BOOL", (1,)),
        "pred_mask": ("BOOL", (256, 256)),
        "threshold": ("FP32", (1,)),
        "release_id": ("INT64", (1,)),
    }


def test_a_decoder_of_another_bit_depth_has_a_name_of_its_own() -> None:
    names = [configs.decoder_name(size, bits) for size, bits in ((256, 8), (256, 12), (64, 1))]
    assert names == ["image_decoder", "image_decoder_12bit", "image_decoder_64_1bit"]
    config = configs.image_decoder_config(64, bit_depth=12)
    assert (config.name, config.parameters["bit_depth"].string_value) == ("image_decoder_64_12bit", "12")
    assert not configs.image_decoder_config(64).parameters


def test_models_of_another_image_size_carry_it_in_their_name() -> None:
    assert configs.teacher_name("wide_resnet50_2", 256) == "teacher_wide_resnet50_2"
    assert configs.teacher_name("wide_resnet50_2", 128) == "teacher_wide_resnet50_2_128"
    assert (configs.decoder_name(256), configs.decoder_name(128)) == ("image_decoder", "image_decoder_128")
    assert [
        configs.foreground_name(method, size) for method in ("threshold", "sam") for size in (256, 128)
    ] == ["foreground", "foreground_128", "foreground_sam", "foreground_sam_128"]


@pytest.mark.parametrize("foreground", [None, "foreground_sam"])
def test_ensemble_pins_its_steps_and_every_tensor_has_a_source(foreground: str | None) -> None:
    judging = judging_steps(
        teacher=("teacher_x", 2),
        student=("pill_student", 5),
        fusion=("distance_fusion", 4),
        foreground=(foreground, 3) if foreground else None,
    )
    ensemble = ensemble_config(
        "pill_encoded",
        inputs=[ENCODED_IMAGE],
        outputs=[*configs.verdict_specs(256), ORIGINAL_SIZE],
        steps=encoded_steps(("image_decoder", 2), judging),
        parameters={"synthetic": "true"},
        max_batch_size=8,
    )
    assert steps(ensemble) == [
        ("image_decoder", 2),
        *([("foreground_sam", 3)] if foreground else []),
        ("teacher_x", 2),
        ("pill_student", 5),
        ("distance_fusion", 4),
    ]
    assert ensemble.parameters["synthetic"].string_value == "true"
    known = {tensor.name for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        assert set(step.input_map.values()) <= known, step.model_name
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in ensemble.output} <= known
    fusion = ensemble.ensemble_scheduling.step[-1]
    assert ("foreground" in fusion.input_map) == (foreground is not None)


def test_training_graphs_and_fusion_mean_the_same_stages() -> None:
    assert tensors.STRIDES == map_fusion.STRIDES == tuple(backbones.STRIDES)
