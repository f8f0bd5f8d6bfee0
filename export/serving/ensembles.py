"""The two ensembles of a category: their steps, the versions of these, and the tensors between them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tritonclient.grpc import model_config_pb2 as pb

from export.manifest import Manifest
from export.serving.alignment import aligning_steps
from export.serving.steps import tensor_fields, verdict_specs
from export.tensors import (
    DISTANCES,
    ENCODED,
    ENCODED_IMAGE,
    MOTION,
    ORIGINAL_SIZE,
    SHOWN,
    TEACHER_OUTPUTS,
    TensorSpec,
    image_spec,
)
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS

Pinned = tuple[str, int]  # a model and its version


def category_ensembles(
    manifest: Manifest,
    steps: Sequence[pb.ModelEnsembling.Step],
    *,
    encoded: Sequence[pb.ModelEnsembling.Step],
    max_batch_size: int,
    student_sha256: str,
    verified: bool,
    parameters: Mapping[str, str],
) -> list[pb.ModelConfig]:
    """`<category>` takes pixels, `<category>_encoded` image files; clients and the parity gate read their parameters.

    Args:
        manifest: of the build.
        steps: see `judging_steps`.
        encoded: see `encoded_steps`.
        max_batch_size: images a batch, at most.
        student_sha256: of the student's file that is served: its graph or its engine.
        verified: whether the parity gate has judged the test set with that file.
        parameters: further parameters: load and memory pools.
    """
    size, bit_depth = manifest.config.image_size, manifest.provenance.bit_depth
    usual = manifest.provenance.usual_scores
    origin = {
        "release_id": str(manifest.release_id),
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "student_sha256": student_sha256,
        "dataset": manifest.provenance.dataset,
        "data_fingerprint": manifest.provenance.data_fingerprint,
        "synthetic": json.dumps(manifest.provenance.synthetic),
        "preset": manifest.config.preset,
        "precision": manifest.precision,
        **({} if bit_depth == 8 else {"bit_depth": str(bit_depth)}),
        **({"aspect": "keep"} if manifest.provenance.keep_aspect else {}),
        **({} if usual is None else {"usual_scores": usual.model_dump_json()}),
        **({} if verified else {"unverified": "true"}),
        **parameters,
    }
    pixels = ensemble_config(
        manifest.category,
        inputs=[image_spec(size)],
        outputs=verdict_specs(size),
        steps=steps,
        parameters=origin,
        max_batch_size=max_batch_size,
    )
    files = ensemble_config(
        manifest.category + ENCODED,
        inputs=[ENCODED_IMAGE],
        outputs=[*verdict_specs(size), ORIGINAL_SIZE],
        steps=encoded,
        parameters=origin,
        max_batch_size=max_batch_size,
    )
    return [pixels, files]


def ensemble_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    steps: Sequence[pb.ModelEnsembling.Step],
    parameters: Mapping[str, str],
    max_batch_size: int,
) -> pb.ModelConfig:
    """The configuration of an ensemble over pinned versions."""
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=max_batch_size,
        input=[tensor_fields(spec) for spec in inputs],
        output=[tensor_fields(spec) for spec in outputs],
        ensemble_scheduling={"step": steps},
        parameters={key: {"string_value": value} for key, value in parameters.items()},
    )


def judging_steps(
    *,
    teacher: Pinned,
    student: Pinned,
    fusion: Pinned,
    foreground: Pinned | None = None,
    alignment: Pinned | None = None,
    picture_only: bool = False,
) -> list[pb.ModelEnsembling.Step]:
    """image -> teacher -> student -> fusion -> verdict; and image -> foreground -> fusion.

    Where images are aligned, that is around it all; see `aligning_steps`. With `picture_only` the fusion learns how.
    """
    mask = {"foreground": "foreground"} if foreground else {}
    distances = {name: name for name in DISTANCES} | {"release_id": "student_release_id"}
    features = {name: name for name in TEACHER_OUTPUTS}
    image = {"image": "image"}
    motion = {MOTION.name: MOTION.name} if alignment and picture_only else {}
    steps = [
        *([_step(foreground, image, mask)] if foreground else []),
        _step(teacher, image, features),
        _step(student, image | features, distances),
        _step(fusion, distances | mask | motion, {name: name for name in VERDICT_OUTPUTS}),
    ]
    return aligning_steps(alignment, steps) if alignment else steps


def encoded_steps(
    decoder: Pinned, steps: Sequence[pb.ModelEnsembling.Step], *, says_where: bool = False
) -> list[pb.ModelEnsembling.Step]:
    """encoded_image -> image, original_size; then the steps that judge.

    With `says_where` the fusion learns where the decoder put each picture: encoded_image -> shown -> fusion.
    """
    outputs = {"image": "image", "original_size": "original_size"}
    shown = {SHOWN.name: SHOWN.name} if says_where else {}
    decoding = _step(decoder, {"encoded_image": "encoded_image"}, outputs | shown)
    judging = []
    for step in steps:
        own = pb.ModelEnsembling.Step()
        own.CopyFrom(step)
        if DISTANCES[0] in step.input_map:
            for tensor, name in shown.items():
                own.input_map[tensor] = name
        judging.append(own)
    return [decoding, *judging]


def _step(pinned: Pinned, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> pb.ModelEnsembling.Step:
    """A model of an ensemble, its version, and the ensemble's names of its inputs and outputs."""
    model, version = pinned
    return pb.ModelEnsembling.Step(
        model_name=model, model_version=version, input_map=dict(inputs), output_map=dict(outputs)
    )
