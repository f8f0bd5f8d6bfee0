"""config.pbtxt of the steps that are Python code (decoder, `threshold` foreground, fusion), and what all steps share.

`tests/export/serving/test_steps.py` compares the three committed config.pbtxt with what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.serving.concurrency import PYTHON_INSTANCES
from export.serving.queues import QueuePolicy
from export.tensors import (
    DISTANCES,
    ENCODED_IMAGE,
    ORIGINAL_SIZE,
    RELEASE_ID,
    TensorSpec,
    distance_specs,
    foreground_spec,
    image_spec,
)
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS

HEADER = "# Written by `python -m export publish`; changes here are lost.\n"
FULL_IMAGE_SIZE = 256  # the paper's; models of another size carry it in their name
STEP_BATCH_SIZE = 128  # images, at most: as many as `--max-batch-size` may be
SPARE_PRIORITY = (
    1000  # the first instance runs this many times for each run of a spare one, where neither is busy
)


def to_text(config: pb.ModelConfig) -> str:
    """The configuration as config.pbtxt."""
    return HEADER + str(text_format.MessageToString(config))


def teacher_name(backbone: str, image_size: int, *, precision: str = "fp32") -> str:
    """`teacher_<backbone>`, shared by every category of one image size and precision."""
    return _of_precision(_sized(f"teacher_{backbone}", image_size), precision)


def student_name(category: str, *, precision: str = "fp32") -> str:
    """`<category>_student`; a precision of its own, since all versions of a model have the same tensor types."""
    return _of_precision(f"{category}_student", precision)


def decoder_name(image_size: int) -> str:
    """`image_decoder`, or `image_decoder_<size>` for an image size other than the paper's."""
    return _sized("image_decoder", image_size)


def foreground_name(method: str, image_size: int) -> str:
    """`foreground` or `foreground_sam`, followed by the image size where it is not the paper's."""
    return _sized("foreground_sam" if method == "sam" else "foreground", image_size)


def verdict_specs(image_size: int) -> list[TensorSpec]:
    """The outputs of the fusion; an image size of -1 is any."""
    types = ("FP32", "FP32", "BOOL", "BOOL", "FP32", "INT64")
    return [
        TensorSpec(name, data_type, (image_size, image_size) if name in MAP_OUTPUTS else (1,))
        for name, data_type in zip(VERDICT_OUTPUTS, types, strict=True)
    ]


def distance_fusion_config(queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The fusion, one model for every category and image size; `queue` as in `step_config`."""
    config = _python_config(
        "distance_fusion",
        [*(TensorSpec(name, "FP32", (-1, -1)) for name in DISTANCES), RELEASE_ID],
        verdict_specs(-1),
        zeros_warm_up("paper_size", [*distance_specs(FULL_IMAGE_SIZE), RELEASE_ID], batch_size=1),
        queue,
    )
    mask = input_of(foreground_spec(-1))
    mask.optional = True  # without background removal no ensemble sends one
    config.input.append(mask)
    return config


def image_decoder_config(image_size: int, queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The decoder for one image size; `queue` as in `step_config`."""
    warm_up = pb.ModelWarmup(name="one_png", batch_size=1)
    # A real file: zeros are no image.
    warm_up.inputs["encoded_image"].CopyFrom(
        pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file="encoded_image")
    )
    outputs = [image_spec(image_size), ORIGINAL_SIZE]
    return _python_config(decoder_name(image_size), [ENCODED_IMAGE], outputs, warm_up, queue)


def foreground_config(image_size: int, queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The `threshold` method of background removal for one image size; `queue` as in `step_config`."""
    inputs, outputs = [image_spec(image_size)], [foreground_spec(image_size)]
    warm_up = zeros_warm_up("black", inputs, batch_size=1)
    return _python_config(foreground_name("threshold", image_size), inputs, outputs, warm_up, queue)


def _python_config(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    warm_up: pb.ModelWarmup,
    queue: QueuePolicy | None,
) -> pb.ModelConfig:
    """A step that is Python code, whose batches are as large as any backbone's."""
    config = step_config(name, inputs=inputs, outputs=outputs, max_batch_size=STEP_BATCH_SIZE, queue=queue)
    config.backend = "python"
    config.model_warmup.append(warm_up)
    return config


def step_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int,
    queue: QueuePolicy | None,
) -> pb.ModelConfig:
    """What every step has: tensors, instances, and one bounded queue in which waiting requests are batched.

    Args:
        name: the model's folder.
        inputs, outputs: its tensors.
        max_batch_size: images a batch, at most.
        queue: how many requests wait and how long; None is 64 requests for any time.
    """
    config = pb.ModelConfig(name=name, max_batch_size=max_batch_size)
    config.input.extend(input_of(spec) for spec in inputs)
    config.output.extend(output_of(spec) for spec in outputs)
    set_instances(config, PYTHON_INSTANCES)
    queue = queue or QueuePolicy()
    config.dynamic_batching.default_queue_policy.CopyFrom(_queue_policy(queue))
    if queue.batch:
        config.dynamic_batching.preferred_batch_size.append(min(queue.batch, max_batch_size))
    return config


def set_instances(config: pb.ModelConfig, count: int) -> None:
    """One first instance, and spare ones that work only while it is busy.

    Instances of equal rank would take turns image by image, and each would find its weights gone from the caches: a
    twentieth of an image's time on a CPU (docs/measurements/queues.md). The server follows the rank when it is started
    with `--rate-limit=execution_count`, as `deploy` does.
    """
    del config.instance_group[:]
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO)
    if count > 1:
        spare = config.instance_group.add(count=count - 1, kind=pb.ModelInstanceGroup.KIND_AUTO)
        spare.rate_limiter.priority = SPARE_PRIORITY


def _queue_policy(queue: QueuePolicy) -> pb.ModelQueuePolicy:
    """A bound on the number of requests, and on their time where a latency budget asks for it.

    Without a budget 64 requests are done within any sensible deadline, and a client that gives up cancels its own. A
    timeout in the policy makes the batcher stall more often (docs/measurements/queues.md).
    """
    # Late requests are refused, and no client may change the time. Both are defaults, which the text leaves out.
    return pb.ModelQueuePolicy(
        max_queue_size=queue.size,
        default_timeout_microseconds=queue.timeout_us,
        timeout_action=pb.ModelQueuePolicy.REJECT,
        allow_timeout_override=False,
    )


def zeros_warm_up(name: str, inputs: Sequence[TensorSpec], *, batch_size: int) -> pb.ModelWarmup:
    """A batch of zeros that a model runs before its first request."""
    warm_up = pb.ModelWarmup(name=name, batch_size=batch_size)
    for spec in inputs:
        warm_up.inputs[spec.name].CopyFrom(
            pb.ModelWarmup.Input(data_type=_data_type(spec), dims=spec.shape, zero_data=True)
        )
    return warm_up


def input_of(spec: TensorSpec) -> pb.ModelInput:
    """A tensor as a model's input."""
    return pb.ModelInput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def output_of(spec: TensorSpec) -> pb.ModelOutput:
    """A tensor as a model's output."""
    return pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def _data_type(spec: TensorSpec) -> int:
    return int(pb.DataType.Value(f"TYPE_{spec.type}"))


def _of_precision(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}_{precision}"


def _sized(name: str, image_size: int) -> str:
    return name if image_size == FULL_IMAGE_SIZE else f"{name}_{image_size}"
