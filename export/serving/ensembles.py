"""The two ensembles of a category: which steps, in which versions, and what tensors pass between them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from export.manifest import Manifest
from export.serving.steps import (
    ENCODED_IMAGE,
    ORIGINAL_SIZE,
    decoder_name,
    image_spec,
    input_of,
    output_of,
    verdict_specs,
)
from export.tensors import DISTANCES, TEACHER_OUTPUTS, TensorSpec
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS


@dataclass(frozen=True)
class Step:
    """A model in an ensemble, its version pinned, and how its tensors are called there."""

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def category_ensembles(
    manifest: Manifest,
    steps: Sequence[Step],
    *,
    max_batch_size: int,
    student_sha256: str,
    verified: bool,
    parameters: Mapping[str, str],
) -> list[pb.ModelConfig]:
    """`<category>` and `<category>_encoded`; their parameters tell clients and the parity gate what is served.

    Args:
        manifest: of the build.
        steps: see `judging_steps`.
        max_batch_size: images a batch, at most.
        student_sha256: of the file that judges: the student's graph, or its engine.
        verified: whether that file has been held to the parity gate.
        parameters: more of them: what the queues and pools were sized from.
    """
    size = manifest.config.image_size
    told = {
        "release_id": str(manifest.release_id),
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "student_sha256": student_sha256,
        "dataset": manifest.provenance.dataset,
        "data_fingerprint": manifest.provenance.data_fingerprint,
        "synthetic": json.dumps(manifest.provenance.synthetic),
        "preset": manifest.config.preset,
        "precision": manifest.precision,
        **({} if verified else {"unverified": "true"}),
        **parameters,
    }
    return [
        ensemble_config(
            manifest.category,
            inputs=[image_spec(size)],
            outputs=verdict_specs(size),
            steps=steps,
            parameters=told,
            max_batch_size=max_batch_size,
        ),
        ensemble_config(
            f"{manifest.category}_encoded",
            inputs=[ENCODED_IMAGE],
            outputs=[*verdict_specs(size), ORIGINAL_SIZE],
            steps=[decoding_step(size), *steps],
            parameters=told,
            max_batch_size=max_batch_size,
        ),
    ]


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
    config.input.extend(input_of(spec) for spec in inputs)
    config.output.extend(output_of(spec) for spec in outputs)
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
    features = {name: name for name in TEACHER_OUTPUTS}
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
