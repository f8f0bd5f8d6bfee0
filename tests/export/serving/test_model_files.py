"""A configuration that does not fit the file it opens is refused before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.serving.backbones import Platform, backbone_config
from export.serving.model_files import ModelFile, mismatches
from export.serving.onnx_files import read_onnx_file
from export.tensors import RELEASE_ID, distance_specs, feature_specs, image_spec
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny
from train.support.files import sha256_of

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
        inputs=(image_spec(SIZE), *feature_specs(SIZE, CHANNELS)),
        outputs=(*distance_specs(SIZE), RELEASE_ID),
        min_batch=min_batch,
        max_batch=max_batch,
    )


def student_config(platform: Platform, *, max_batch_size: int = 8) -> pb.ModelConfig:
    file = student_file()
    return backbone_config(
        "pill_student",
        inputs=file.inputs,
        outputs=file.outputs,
        versions=[3],
        platform=replace(platform, max_batch_size=max_batch_size),
    )


@pytest.mark.parametrize("max_batch_size", [1, 6, 8])
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: f"{platform.name}-{platform.provider}")
def test_what_is_published_fits_its_file(platform: Platform, max_batch_size: int) -> None:
    assert mismatches(student_config(platform, max_batch_size=max_batch_size), student_file()) == []


def test_an_onnx_file_says_what_it_takes(tiny_build: Path) -> None:
    file = read_onnx_file(tiny_build / CATEGORY / "student.onnx")
    assert file.inputs[0] == image_spec(SIZE)
    assert set(file.outputs) == {*distance_specs(SIZE), RELEASE_ID}
    assert (file.min_batch, file.max_batch > 1000) == (1, True)


def half_features(config: pb.ModelConfig) -> None:
    config.input[1].data_type = pb.TYPE_FP16


def no_release_id(config: pb.ModelConfig) -> None:
    del config.output[-1]


def many_batches(config: pb.ModelConfig) -> None:
    config.max_batch_size = 16


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (half_features, "input teacher_1 FP16 [32, 16, 16] is not in the file"),
        (half_features, "the file's input teacher_1 FP32 [32, 16, 16] is not configured"),
        (no_release_id, "the file's output release_id INT64 [1] is not configured"),
        (many_batches, "batches of 1 to 16 are configured, and the file takes 1 to 8"),
    ],
)
def test_each_mismatch_is_a_sentence(fault: Callable[[pb.ModelConfig], None], sentence: str) -> None:
    config = student_config(Platform("tensorrt"))
    fault(config)
    assert any(sentence in mismatch for mismatch in mismatches(config, student_file()))


def test_a_profile_that_starts_above_one_is_refused() -> None:
    sentences = mismatches(student_config(Platform("tensorrt")), student_file(min_batch=2))
    assert len(sentences) == 1
    assert sentences[0].startswith(
        "batches of 1 to 8 are configured, and the file takes 2 to 8: build it for batches from 1 on (https://"
    )


def test_a_graph_of_one_batch_is_not_published(tiny_build: Path, tmp_path: Path) -> None:
    build = Path(shutil.copytree(tiny_build / CATEGORY, tmp_path / "build"))
    path = build / "student.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    manifest = json.loads((build / "manifest.json").read_text())
    manifest["files"][path.name] = {"sha256": sha256_of(path), "n_bytes": path.stat().st_size}
    (build / "manifest.json").write_text(json.dumps(manifest))
    repository = copy_backends(tmp_path / "models")
    before = sorted(repository.rglob("*"))
    with pytest.raises(
        PublishError, match=r"serve pill_student as configured: batches of 1 to 4 .* takes 2 to 2"
    ):
        publish_tiny(build, repository, platform=Platform("onnxruntime"))
    assert sorted(repository.rglob("*")) == before
