"""Pictures that keep their own size: what they are served with, and what is refused in a sentence."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from export.errors import PublishError
from export.records import GraphPart
from export.releases.render import Demand, queue_of
from export.serving.backbones import Platform, backbone_config
from export.serving.native_pictures import (
    QUEUE,
    STRIP_BYTES,
    NativePictures,
    largest_size,
    max_pixels,
    part_names,
    parts_json,
    require_servable,
    usual_size,
)
from export.serving.queues import DEFAULT_SIZE
from export.serving.steps import foreground_config, image_decoder_config, teacher_name
from export.serving.throughput import chosen_batch
from export.tensors import feature_specs, image_spec
from model_repository.image_size import NATIVE
from train.config import FitConfig

PARTS = [
    GraphPart(
        file="teacher_part_1.onnx",
        inputs=("image",),
        outputs=("teacher_1",),
        strip_step=4,
        strip_margin=16,
        bytes_per_pixel=200,
    ),
    GraphPart(
        file="teacher_part_2.onnx",
        inputs=("teacher_1",),
        outputs=("teacher_2", "teacher_3"),
        strip_step=16,
        strip_margin=224,
        bytes_per_pixel=40,
    ),
]


def manifest(**config: Any) -> Any:
    native = FitConfig(**{"image_size": "native", "crop_size": 96, **config})
    return SimpleNamespace(category="pill", config=native, parts={"teacher": PARTS})


def test_the_limit_is_what_the_environment_states(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max_pixels() == 25_000_000
    monkeypatch.setenv("ASTMFR_NATIVE_MEGAPIXELS", "12.5")
    assert max_pixels() == 12_500_000
    assert largest_size(manifest()) == 3520
    for wrong in ("many", "nan", "0"):
        monkeypatch.setenv("ASTMFR_NATIVE_MEGAPIXELS", wrong)
        with pytest.raises(
            PublishError, match=f"^ASTMFR_NATIVE_MEGAPIXELS is '{wrong}'; expected megapixels from"
        ):
            max_pixels()


def test_a_graph_runs_in_strips_of_one_picture() -> None:
    native = NativePictures.of(manifest())
    assert native is not None
    sizes = usual_size(manifest())
    assert sizes == 96
    config = backbone_config(
        teacher_name("net", NATIVE),
        inputs=[image_spec(NATIVE)],
        outputs=feature_specs(NATIVE, (8, 16, 32)),
        versions=[1],
        platform=Platform(max_batch_size=chosen_batch(NATIVE, on_gpu=True)),
        native=native,
        usual_inputs=[image_spec(96)],
    )
    assert config.name == "teacher_net_native"
    assert config.max_batch_size == 1
    assert [list(tensor.dims) for tensor in (*config.input, config.output[2])] == [[-1, -1, 3], [32, -1, -1]]
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert parameters["max_pixels"] == "25000000"
    assert [list(warm.inputs["image"].dims) for warm in config.model_warmup] == [[96, 96, 3]]
    assert NativePictures.of(manifest(image_size=256)) is None


def test_a_build_of_before_is_exported_again() -> None:
    before = manifest()
    before.parts = {}
    with pytest.raises(
        PublishError, match=r"^The build of pill does not say in which parts its graphs run; nothing is"
    ):
        NativePictures.of(before)


def test_strips_of_a_part_are_as_large_as_memory_allows() -> None:
    near, far = json.loads(parts_json(manifest(), "teacher"))
    assert near == {
        "file": "part_1.onnx",
        "inputs": ["image"],
        "outputs": ["teacher_1"],
        "strip_step": 4,
        "strip_margin": 16,
        "strip_pixels": STRIP_BYTES // 200,
    }
    assert far["strip_pixels"] == STRIP_BYTES // 40
    assert part_names(manifest(), "teacher") == {
        "part_1.onnx": "teacher_part_1.onnx",
        "part_2.onnx": "teacher_part_2.onnx",
    }


def test_other_steps_take_one_picture_too() -> None:
    decoder = image_decoder_config(NATIVE, max_pixels=1000)
    assert (decoder.name, decoder.max_batch_size) == ("image_decoder_native", 1)
    assert decoder.parameters["max_pixels"].string_value == "1000"
    says_where = [
        "shown" in {tensor.name for tensor in config.output}
        for config in (decoder, image_decoder_config(256, keep_aspect=True), image_decoder_config(256))
    ]
    assert says_where == [True, True, False]
    foreground = foreground_config(NATIVE, usual_size=96)
    assert (foreground.name, foreground.max_batch_size) == ("foreground_native", 1)
    assert "max_pixels" not in image_decoder_config(256).parameters


def test_few_pictures_wait_where_all_are_large() -> None:
    large, small = (Demand(name, frozenset({"fusion", name}), 1, native=name == "a") for name in "ab")
    assert queue_of("a", [large, small]) == QUEUE
    assert queue_of("fusion", [large, small]).size == queue_of("b", [large, small]).size == DEFAULT_SIZE


def test_what_they_are_not_served_with_is_told() -> None:
    with pytest.raises(PublishError, match="TensorRT builds engines for pictures of one size"):
        require_servable(manifest(), platform="tensorrt", provider="cpu")
    with pytest.raises(PublishError, match="take --platform python, or onnxruntime with"):
        require_servable(manifest(), platform="onnxruntime", provider="tensorrt")
    require_servable(manifest(), platform="onnxruntime", provider="cuda")
    require_servable(manifest(image_size=256), platform="tensorrt", provider="cpu")
