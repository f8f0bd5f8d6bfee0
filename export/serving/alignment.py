"""The step that aligns: its configuration, and where it stands in an ensemble, before the teacher and after the fusion.

image -> alignment -> aligned_image, motion -> teacher, student, fusion -> aligned_map, aligned_mask -> alignment ->
anomaly_map, pred_mask in the frame of the image that was sent. Scores and labels are those of the aligned image.
"""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.grpc import model_config_pb2 as pb

from export.serving.queues import QueuePolicy
from export.serving.steps import (
    LEAST_INSTANCES,
    STEP_BATCH_SIZE,
    instance_groups,
    sized,
    step_config,
    tensor_fields,
)
from export.tensors import MOTION, TensorSpec, image_spec
from model_repository.image_size import ImageSize, height_width

COMMITTED = "alignment"  # the folder of the project's own code
ALIGNED_IMAGE = "aligned_image"
ALIGNED_MAPS = {
    "anomaly_map": "aligned_map",
    "pred_mask": "aligned_mask",
}  # of the fusion, in an ensemble that aligns


def alignment_name(category: str, image_size: ImageSize) -> str:
    """`<category>_alignment`, followed by the image size where it is not the paper's.

    Each category has a reference picture of its own.
    """
    return sized(f"{category}_alignment", image_size)


def alignment_config(
    category: str, image_size: ImageSize, queue: QueuePolicy | None = None
) -> pb.ModelConfig:
    """The step for one category; `queue` as in `export.serving.steps.step_config`.

    All inputs are optional, since a request either aligns or restores. It has no warm-up: zeros cannot be aligned, and
    the step aligns its own reference picture when it is loaded.
    """
    height, width = height_width(image_size)
    maps = [
        TensorSpec("aligned_map", "FP32", (height, width)),
        TensorSpec("aligned_mask", "BOOL", (height, width)),
    ]
    config = step_config(
        alignment_name(category, image_size),
        inputs=[],
        outputs=[
            TensorSpec(ALIGNED_IMAGE, "UINT8", (height, width, 3)),
            MOTION,
            TensorSpec("anomaly_map", "FP32", (height, width)),
            TensorSpec("pred_mask", "BOOL", (height, width)),
        ],
        queue=queue,
        max_batch_size=STEP_BATCH_SIZE,
        backend="python",
        instance_group=instance_groups(LEAST_INSTANCES),
    )
    for spec in (image_spec(image_size), *maps, TensorSpec("aligned_motion", MOTION.type, MOTION.shape)):
        config.input.add(**tensor_fields(spec), optional=True)
    return config


def aligning_steps(
    alignment: tuple[str, int], steps: Sequence[pb.ModelEnsembling.Step]
) -> list[pb.ModelEnsembling.Step]:
    """The steps of an ensemble that judges an image, around which it is aligned and its maps are restored.

    Args:
        alignment: the step's model and version.
        steps: from `image` to the verdict, see `export.serving.ensembles.judging_steps`; they stay as they are.
    """
    model, version = alignment
    aligned = []
    for step in steps:
        own = pb.ModelEnsembling.Step()
        own.CopyFrom(step)
        # Of copies: a map of protobuf that changes while it is gone through may leave some out.
        for tensor, name in dict(own.input_map).items():
            own.input_map[tensor] = ALIGNED_IMAGE if name == "image" else name
        for tensor, name in dict(own.output_map).items():
            own.output_map[tensor] = ALIGNED_MAPS.get(name, name)
        aligned.append(own)
    first = pb.ModelEnsembling.Step(
        model_name=model,
        model_version=version,
        input_map={"image": "image"},
        output_map={name: name for name in (ALIGNED_IMAGE, MOTION.name)},
    )
    last = pb.ModelEnsembling.Step(
        model_name=model,
        model_version=version,
        input_map={
            "aligned_map": "aligned_map",
            "aligned_mask": "aligned_mask",
            "aligned_motion": MOTION.name,
        },
        output_map={name: name for name in ALIGNED_MAPS},
    )
    return [first, *aligned, last]
