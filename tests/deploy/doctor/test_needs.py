"""What configurations ask for, beside what protobuf reads in the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.doctor.needs import count_instances, read_needs
from deploy.errors import RepositoryError
from export.serving.steps import distance_fusion_config, foreground_config, image_decoder_config


def group(count: int, **further: object) -> dict[str, object]:
    return {"count": count, "kind": "KIND_CPU", **further}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], 1),
        ([group(3)], 3),
        ([group(1), group(2, rate_limiter={"priority": 2, "resources": [{"name": "R", "count": 7}]})], 3),
    ],
)
def test_instances_are_counted_as_written(groups: list[dict[str, object]], expected: int) -> None:
    config = pb.ModelConfig(name="step", backend="python", instance_group=groups)
    config.model_warmup.add(name="zeros", batch_size=1, count=5)
    text = text_format.MessageToString(config)
    assert count_instances(text) == expected


@pytest.mark.parametrize(
    "config",
    [distance_fusion_config(instances=3), foreground_config(64), image_decoder_config(64)],
    ids=lambda config: config.name,
)
def test_our_own_configurations_are_read_as_protobuf_reads_them(config: pb.ModelConfig) -> None:
    text = text_format.MessageToString(config)
    assert count_instances(text) == (sum(each.count for each in config.instance_group) or 1)


def test_ensembles_need_nothing_themselves(published: Path) -> None:
    needs = read_needs(published)
    assert needs.backends == {"python"}
    assert (needs.python_instances, needs.gpu, needs.onnx_in_python) == (2, False, False)
    assert needs.beyond_python == ""


def test_backends_graphs_and_gpus_are_found(published: Path) -> None:
    (published / "identity" / "1" / "model.onnx").touch()
    for name, backend, kind in (("teacher", "tensorrt", "KIND_GPU"), ("student", "onnxruntime", "KIND_CPU")):
        (published / name).mkdir()
        config = pb.ModelConfig(name=name, backend=backend, instance_group=[{"count": 2, "kind": kind}])
        (published / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    needs = read_needs(published)
    assert needs.backends == {"python", "tensorrt", "onnxruntime"}
    assert (needs.python_instances, needs.gpu, needs.onnx_in_python) == (2, True, True)
    assert needs.beyond_python == "onnxruntime and tensorrt"


def test_folders_of_a_publisher_are_no_models(published: Path) -> None:
    (published / "identity").rename(published / ".identity")
    assert read_needs(published).backends == frozenset()


def test_a_configuration_that_is_no_text_is_refused(published: Path) -> None:
    (published / "identity" / "config.pbtxt").write_bytes(b"\xff")
    with pytest.raises(RepositoryError, match="cannot be read"):
        read_needs(published)
