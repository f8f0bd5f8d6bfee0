"""config.pbtxt of the steps that are Python code (decoder, `threshold` foreground, fusion), and what all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.serving.queues import QueuePolicy
from export.tensors import (
    DISTANCES,
    ENCODED_IMAGE,
    MOTION,
    ORIGINAL_SIZE,
    RELEASE_ID,
    SHOWN,
    TensorSpec,
    distance_specs,
    foreground_spec,
    image_spec,
)
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS
from model_repository.image_size import NATIVE, ImageSize, height_width, size_text

HEADER = "# Written by `python -m export publish`; changes here are lost.\n"
FULL_IMAGE_SIZE = 256  # the paper's; models of another size carry it in their name
STEP_BATCH_SIZE = 128  # images, at most: as many as `--max-batch-size` may be
# With one instance and a bounded queue Triton's batcher now and then sleeps for half a second beside waiting requests.
# A second instance keeps it awake.
LEAST_INSTANCES = 2
LONGEST_WAIT_US = 3600 * 10**6  # of a request that states no time of its own: nobody waits for so long
SPARE_PRIORITY = 1000  # runs of the first instance for each run of a spare one, where neither is busy


def to_text(config: pb.ModelConfig) -> str:
    """The configuration as config.pbtxt."""
    return HEADER + str(text_format.MessageToString(config))


def teacher_name(backbone: str, image_size: ImageSize, *, precision: str = "fp32") -> str:
    """`teacher_<backbone>`, shared by every category of one image size and precision."""
    return _of_precision(sized(f"teacher_{backbone}", image_size), precision)


def student_name(category: str, *, precision: str = "fp32") -> str:
    """`<category>_student`; a precision of its own, since all versions of a model have the same tensor types."""
    return _of_precision(f"{category}_student", precision)


def decoder_name(image_size: ImageSize, bit_depth: int = 8, *, keep_aspect: bool = False) -> str:
    """`image_decoder`, then what is not as in the paper: the image size, `<bits>bit`, and `kept` for the shape."""
    of_depth = "" if bit_depth == 8 else f"_{bit_depth}bit"
    return sized("image_decoder", image_size) + of_depth + ("_kept" if keep_aspect else "")


def foreground_name(method: str, image_size: ImageSize) -> str:
    """`foreground` or `foreground_sam`, followed by the image size where it is not the paper's."""
    return sized("foreground_sam" if method == "sam" else "foreground", image_size)


def verdict_specs(image_size: ImageSize) -> list[TensorSpec]:
    """The outputs of the fusion; an image size of -1 is any."""
    types = ("FP32", "FP32", "BOOL", "BOOL", "FP32", "INT64")
    return [
        TensorSpec(name, data_type, height_width(image_size) if name in MAP_OUTPUTS else (1,))
        for name, data_type in zip(VERDICT_OUTPUTS, types, strict=True)
    ]


def distance_fusion_config(
    queue: QueuePolicy | None = None, *, instances: int = LEAST_INSTANCES
) -> pb.ModelConfig:
    """The fusion, one model for every category and image size; `queue` as in `step_config`."""
    config = _python_config(
        "distance_fusion",
        [*(TensorSpec(name, "FP32", (-1, -1)) for name in DISTANCES), RELEASE_ID],
        verdict_specs(-1),
        zeros_warm_up("paper_size", [*distance_specs(FULL_IMAGE_SIZE), RELEASE_ID], batch_size=1),
        queue,
        instances,
    )
    # Optional: without background removal no ensemble sends a mask, and of pictures that are stretched onto all of
    # what networks see none says where they are shown.
    for spec in (foreground_spec(-1), SHOWN, MOTION):
        config.input.add(**tensor_fields(spec), optional=True)
    return config


def image_decoder_config(
    image_size: ImageSize,
    queue: QueuePolicy | None = None,
    *,
    bit_depth: int = 8,
    keep_aspect: bool = False,
    max_pixels: int | None = None,
) -> pb.ModelConfig:
    """The decoder for one image size; a bit depth that is not 8 and a shape that is kept are its parameters.

    `queue` is as in `step_config`; `max_pixels` are those of an image that keeps its own size, at most.
    """
    # A real file: zeros are no image.
    file = {"data_type": "TYPE_STRING", "dims": [1], "input_data_file": "encoded_image"}
    warm_up = pb.ModelWarmup(name="one_png", batch_size=1, inputs={"encoded_image": file})
    outputs = [image_spec(image_size), ORIGINAL_SIZE]
    if keep_aspect or image_size == NATIVE:
        outputs.append(SHOWN)
    name = decoder_name(image_size, bit_depth, keep_aspect=keep_aspect)
    config = _python_config(
        name, [ENCODED_IMAGE], outputs, warm_up, queue, max_batch_size=_largest_batch(image_size)
    )
    # Requests are not put together: one whose lengths lie would take the others of its batch with it (Triton 2.51), and
    # files are decoded one after the other anyhow.
    config.dynamic_batching.preferred_batch_size.append(1)
    if bit_depth != 8:
        config.parameters["bit_depth"].string_value = str(bit_depth)
    if keep_aspect:
        config.parameters["aspect"].string_value = "keep"
    if max_pixels is not None:
        config.parameters["max_pixels"].string_value = str(max_pixels)
    return config


def foreground_config(
    image_size: ImageSize, queue: QueuePolicy | None = None, *, usual_size: ImageSize | None = None
) -> pb.ModelConfig:
    """The `threshold` method of background removal for one image size; `queue` as in `step_config`.

    It is warmed up with an image of `usual_size`, where images keep their own.
    """
    inputs, outputs = [image_spec(image_size)], [foreground_spec(image_size)]
    warm_up = zeros_warm_up("black", [image_spec(usual_size or image_size)], batch_size=1)
    name = foreground_name("threshold", image_size)
    return _python_config(name, inputs, outputs, warm_up, queue, max_batch_size=_largest_batch(image_size))


def _largest_batch(image_size: ImageSize) -> int:
    """Images that a step takes at once: of those that keep their own size one, as they cannot be put together."""
    return 1 if image_size == NATIVE else STEP_BATCH_SIZE


def _python_config(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    warm_up: pb.ModelWarmup,
    queue: QueuePolicy | None,
    instances: int = LEAST_INSTANCES,
    *,
    max_batch_size: int = STEP_BATCH_SIZE,
) -> pb.ModelConfig:
    """A step that is Python code, whose batches are as large as any backbone's."""
    return step_config(
        name,
        inputs=inputs,
        outputs=outputs,
        queue=queue,
        max_batch_size=max_batch_size,
        backend="python",
        instance_group=instance_groups(instances),
        model_warmup=[warm_up],
    )


def step_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    queue: QueuePolicy | None,
    max_batch_size: int,
    **fields: Any,
) -> pb.ModelConfig:
    """What every step has: tensors, and one bounded queue in which waiting requests are batched.

    The queue bounds the number of requests and not their time: 64 are done within any sensible deadline. A request that
    states a time (Triton's `timeout`) is refused at each step where it has waited for so long.

    Args:
        name: the model's folder.
        inputs, outputs: its tensors.
        queue: how many requests wait; None is 64.
        max_batch_size: images a batch, at most.
        fields: further fields of the configuration.
    """
    config = pb.ModelConfig(
        name=name,
        max_batch_size=max_batch_size,
        input=[tensor_fields(spec) for spec in inputs],
        output=[tensor_fields(spec) for spec in outputs],
        **fields,
    )
    set_queue(config, queue or QueuePolicy())
    return config


def set_queue(config: pb.ModelConfig, queue: QueuePolicy) -> None:
    """Bound the queue of a step, in place of the one that it had."""
    policy: dict[str, Any] = {"max_queue_size": queue.size}
    if queue.size:
        # Triton heeds the time of a request only where it is shorter than one of the step's own.
        policy |= {"default_timeout_microseconds": LONGEST_WAIT_US, "allow_timeout_override": True}
    batching = pb.ModelDynamicBatching(
        default_queue_policy=policy, preferred_batch_size=config.dynamic_batching.preferred_batch_size
    )
    config.dynamic_batching.CopyFrom(batching)


def set_instances(config: pb.ModelConfig, count: int) -> None:
    """Give a step that many instances, where it runs now: on GPUs, or on the CPU."""
    on_gpu = any(group.kind == pb.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    groups = [{"count": count, "kind": "KIND_GPU"}] if on_gpu else instance_groups(count)
    del config.instance_group[:]
    for group in groups:
        config.instance_group.add(**group)


def instance_groups(count: int) -> list[dict[str, Any]]:
    """One first instance, and spare ones that work only while it is busy; all of them compute on the CPU.

    Without a kind Triton would start each of them once more on every GPU that it sees.

    Instances of equal rank would take turns image by image, and each would find its weights gone from the caches: a
    twentieth of an image's time on a CPU (docs/measurements/queues.md). The server follows the rank when it is started
    with `--rate-limit=execution_count`, as `deploy` does.
    """
    spare = {"count": count - 1, "kind": "KIND_CPU", "rate_limiter": {"priority": SPARE_PRIORITY}}
    return [{"count": 1, "kind": "KIND_CPU"}, *([spare] if count > 1 else [])]


def zeros_warm_up(name: str, inputs: Sequence[TensorSpec], *, batch_size: int) -> pb.ModelWarmup:
    """A batch of zeros that a model runs before its first request."""
    zeros = {
        spec.name: {"data_type": f"TYPE_{spec.type}", "dims": spec.shape, "zero_data": True}
        for spec in inputs
    }
    return pb.ModelWarmup(name=name, batch_size=batch_size, inputs=zeros)


def tensor_fields(spec: TensorSpec) -> dict[str, Any]:
    """A tensor as the fields of a model's input or output."""
    return {"name": spec.name, "data_type": f"TYPE_{spec.type}", "dims": spec.shape}


def _of_precision(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}_{precision}"


def sized(name: str, image_size: ImageSize) -> str:
    """A model's name, followed by the image size where it is not the paper's."""
    return name if image_size == FULL_IMAGE_SIZE else f"{name}_{size_text(image_size)}"
