"""config.pbtxt of every model that is served, through Triton's own ModelConfig protobuf.

`tests/export/test_model_configs.py` holds the two committed backends to what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

HEADER = "# Written by `python -m export publish`; changes here are lost.\n"
QUEUE_SIZE = 64  # requests that may wait at a step; one more is refused
FULL_IMAGE_SIZE = 256  # the paper's; models of another size carry it in their name

VERDICT_OUTPUTS = ("anomaly_map", "pred_score", "pred_label", "pred_mask", "threshold", "release_id")
DISTANCES = ("distance_1", "distance_2", "distance_3")
TEACHER_FEATURES = ("teacher_1", "teacher_2", "teacher_3")


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape without the batch of a tensor; -1 is any size."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A model in an ensemble, its version pinned, and how its tensors are called there."""

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def to_text(config: pb.ModelConfig) -> str:
    """The configuration as config.pbtxt."""
    return HEADER + str(text_format.MessageToString(config))


def teacher_name(backbone: str, image_size: int, *, precision: str = "fp32") -> str:
    """`teacher_<backbone>`, shared by every category of one image size and precision."""
    return _of_precision(_sized(f"teacher_{backbone}", image_size), precision)


def student_name(category: str, *, precision: str = "fp32") -> str:
    """`<category>_student`; another precision has other types, and a model's versions share theirs."""
    return _of_precision(f"{category}_student", precision)


def decoder_name(image_size: int) -> str:
    """`image_decoder`, or its sibling for another image size."""
    return _sized("image_decoder", image_size)


def foreground_name(method: str, image_size: int) -> str:
    """`foreground` or `foreground_sam`, or their siblings for another image size."""
    return _sized("foreground_sam" if method == "sam" else "foreground", image_size)


def image_spec(image_size: int) -> TensorSpec:
    """The `image` tensor: plain RGB bytes."""
    return TensorSpec("image", "UINT8", (image_size, image_size, 3))


def feature_specs(image_size: int, channels: Sequence[int], *, precision: str = "fp32") -> list[TensorSpec]:
    """The teacher's features at strides 4, 8 and 16; in half precision they are half as large."""
    data_type = "FP16" if precision == "fp16" else "FP32"
    return [
        TensorSpec(name, data_type, (count, image_size // stride, image_size // stride))
        for name, count, stride in zip(TEACHER_FEATURES, channels, (4, 8, 16), strict=True)
    ]


def distance_specs(image_size: int) -> list[TensorSpec]:
    """The student's distance maps at strides 4, 8 and 16."""
    return [
        TensorSpec(name, "FP32", (image_size // stride, image_size // stride))
        for name, stride in zip(DISTANCES, (4, 8, 16), strict=True)
    ]


def verdict_specs(image_size: int) -> list[TensorSpec]:
    """What the fusion gives; an image size of -1 is any."""
    square = (image_size, image_size)
    return [
        TensorSpec("anomaly_map", "FP32", square),
        TensorSpec("pred_score", "FP32", (1,)),
        TensorSpec("pred_label", "BOOL", (1,)),
        TensorSpec("pred_mask", "BOOL", square),
        TensorSpec("threshold", "FP32", (1,)),
        TensorSpec("release_id", "INT64", (1,)),
    ]


def foreground_spec(image_size: int) -> TensorSpec:
    """The part's mask; an image size of -1 is any."""
    return TensorSpec("foreground", "BOOL", (image_size, image_size))


RELEASE_ID = TensorSpec("release_id", "INT64", (1,))
ENCODED_IMAGE = TensorSpec("encoded_image", "STRING", (1,))
ORIGINAL_SIZE = TensorSpec("original_size", "INT32", (2,))


def backbone_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    versions: Sequence[int],
    platform: str,
    max_batch_size: int,
    warm_up_sizes: Sequence[int] = (),
) -> pb.ModelConfig:
    """A teacher's, student's or SAM's configuration.

    Args:
        name: the model's folder.
        inputs: what it takes.
        outputs: what it gives.
        versions: those that are loaded; an ensemble's pinned one must be among them.
        platform: `python` (ONNX Runtime in a Python backend) or `onnxruntime`.
        max_batch_size: images, at most.
        warm_up_sizes: batches to run before the first request; one image and the largest batch unless given.
    """
    config = _step_config(name, inputs=inputs, outputs=outputs, max_batch_size=max_batch_size)
    config.version_policy.specific.versions.extend(versions)
    if platform == "python":
        config.backend = "python"
    else:
        config.backend = "onnxruntime"
        config.default_model_filename = "model.onnx"
        # As in backends/onnxruntime_model.py: a session's threads spin no longer than its run lasts.
        config.parameters["session.intra_op.allow_spinning"].string_value = "1"
        config.parameters["session.force_spinning_stop"].string_value = "1"
    sizes = warm_up_sizes or sorted({1, max_batch_size})
    config.model_warmup.extend(_warm_up(f"batch_{size}", inputs, batch_size=size) for size in sizes)
    return config


def distance_fusion_config() -> pb.ModelConfig:
    """The fusion of every category and image size."""
    inputs = [*(TensorSpec(name, "FP32", (-1, -1)) for name in DISTANCES), RELEASE_ID]
    config = _step_config("distance_fusion", inputs=inputs, outputs=verdict_specs(-1), max_batch_size=128)
    mask = _input(foreground_spec(-1))
    mask.optional = True  # an ensemble whose release keeps the background maps nothing to it
    config.input.append(mask)
    config.backend = "python"
    warm_up = _warm_up("paper_size", [*distance_specs(FULL_IMAGE_SIZE), RELEASE_ID], batch_size=1)
    config.model_warmup.append(warm_up)
    return config


def image_decoder_config(image_size: int) -> pb.ModelConfig:
    """The decoder for one image size."""
    config = _step_config(
        decoder_name(image_size),
        inputs=[ENCODED_IMAGE],
        outputs=[image_spec(image_size), ORIGINAL_SIZE],
        max_batch_size=128,
    )
    config.backend = "python"
    # A real file: a decoder cannot be warmed up with zeros.
    warm_up = pb.ModelWarmup(name="one_png", batch_size=1)
    warm_up.inputs["encoded_image"].CopyFrom(
        pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file="encoded_image")
    )
    config.model_warmup.append(warm_up)
    return config


def foreground_config(image_size: int) -> pb.ModelConfig:
    """The `threshold` method of background removal for one image size."""
    image = image_spec(image_size)
    config = _step_config(
        foreground_name("threshold", image_size),
        inputs=[image],
        outputs=[foreground_spec(image_size)],
        max_batch_size=128,
    )
    config.backend = "python"
    config.model_warmup.append(_warm_up("black", [image], batch_size=1))
    return config


def ensemble_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    steps: Sequence[Step],
    parameters: Mapping[str, str],
    max_batch_size: int,
) -> pb.ModelConfig:
    """An ensemble over pinned versions; `parameters` tell what it was made from."""
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=max_batch_size)
    config.input.extend(_input(spec) for spec in inputs)
    config.output.extend(_output(spec) for spec in outputs)
    for step in steps:
        config.ensemble_scheduling.step.append(
            pb.ModelEnsembling.Step(
                model_name=step.model,
                model_version=step.version,
                input_map=dict(step.inputs),
                output_map=dict(step.outputs),
            )
        )
    for key, value in sorted(parameters.items()):
        config.parameters[key].string_value = value
    return config


def judging_steps(
    *,
    teacher: str,
    teacher_version: int,
    student: str,
    student_version: int,
    foreground: str | None = None,
    foreground_version: int = 1,
) -> list[Step]:
    """image -> teacher -> student -> distance_fusion -> verdict; and image -> foreground -> distance_fusion."""
    mask = {"foreground": "foreground"} if foreground else {}
    masking = [Step(foreground, foreground_version, {"image": "image"}, mask)] if foreground else []
    distances = {name: name for name in DISTANCES}
    features = {name: name for name in TEACHER_FEATURES}
    return [
        *masking,
        Step(teacher, teacher_version, {"image": "image"}, features),
        Step(
            student,
            student_version,
            {"image": "image", **features},
            {**distances, "release_id": "student_release_id"},
        ),
        Step(
            "distance_fusion",
            1,
            {**distances, "release_id": "student_release_id", **mask},
            {name: name for name in VERDICT_OUTPUTS},
        ),
    ]


def decoding_step(image_size: int) -> Step:
    """encoded_image -> image, original_size."""
    return Step(
        decoder_name(image_size),
        1,
        {"encoded_image": "encoded_image"},
        {"image": "image", "original_size": "original_size"},
    )


def _step_config(
    name: str, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch_size: int
) -> pb.ModelConfig:
    """One CPU instance with a bounded queue in which waiting requests are batched."""
    config = pb.ModelConfig(name=name, max_batch_size=max_batch_size)
    config.input.extend(_input(spec) for spec in inputs)
    config.output.extend(_output(spec) for spec in outputs)
    config.instance_group.append(pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO))
    # The bound is a number and no time: 64 requests are done within any sensible deadline, a client that
    # gives up cancels its own, and a time makes the batcher stall more often (docs/serving.md).
    config.dynamic_batching.default_queue_policy.max_queue_size = QUEUE_SIZE
    return config


def _warm_up(name: str, inputs: Sequence[TensorSpec], *, batch_size: int) -> pb.ModelWarmup:
    warm_up = pb.ModelWarmup(name=name, batch_size=batch_size)
    for spec in inputs:
        warm_up.inputs[spec.name].CopyFrom(
            pb.ModelWarmup.Input(data_type=_data_type(spec), dims=spec.shape, zero_data=True)
        )
    return warm_up


def _input(spec: TensorSpec) -> pb.ModelInput:
    return pb.ModelInput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def _output(spec: TensorSpec) -> pb.ModelOutput:
    return pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def _data_type(spec: TensorSpec) -> int:
    return int(pb.DataType.Value(f"TYPE_{spec.type}"))


def _of_precision(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}_{precision}"


def _sized(name: str, image_size: int) -> str:
    return name if image_size == FULL_IMAGE_SIZE else f"{name}_{image_size}"
