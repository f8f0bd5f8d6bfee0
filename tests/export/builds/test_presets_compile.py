"""Both presets' teacher and student in all three precisions: exported, checked, built by TensorRT for RTX."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from export.agreement import LIMITS, Limits
from export.builds import precisions
from export.builds.up_to_date import build_category
from export.engines.check import check_engines
from export.graphs import int8
from export.manifest import build_folder
from export.product import ProductPaths
from tests.conftest import FitTiny
from train.data.category import CategoryData

pytestmark = pytest.mark.slow

# What counts here is structure: with random weights labels flip.
ANY = Limits(auroc_loss=1, pro_loss=1, flips=1, false_reject_change=1)
BACKBONES: dict[str, dict[str, Any]] = {
    "edge": {"teacher": "tf_efficientnet_lite2", "student": "tf_efficientnet_lite0"},
    "paper": {
        "teacher": "wide_resnet50_2",
        "student": "resnext50_32x4d",
        "distance": "cosine",
        "neighbourhoods": (1, 1, 1),
    },
}


def all_alike(pair: Any, judge: Any) -> list[int8.Sensitivity]:
    nodes = [(graph, node) for graph in ("teacher", "student") for node in pair.convolutions(graph)]
    return [int8.Sensitivity(graph, node, 0.0) for graph, node in nodes]


def weight_bytes(graph: Path) -> int:
    """Bytes of a student's weights, without the common factors: the distance stays in float32."""
    return sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in onnx.load(graph).graph.initializer
        if ".residuals.common." not in tensor.name
    )


@pytest.mark.parametrize("preset", BACKBONES)
def test_three_precisions(
    preset: str, tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 32 px, every convolution in int8: which of them bear it is for a trained network to say."""
    monkeypatch.setattr(precisions, "quantize", partial(int8.quantize, max_change=1e9))
    monkeypatch.setattr(int8, "_sensitivities", all_alike)
    category = tiny_data.category
    fit_tiny(
        tiny_data,
        tmp_path / "runs" / category,
        **BACKBONES[preset],
        steps=1,
        batch_size=2,
        holdout_ratio=0.01,
    )
    for precision in LIMITS:
        product = ProductPaths(category, tmp_path / "runs", tmp_path / "build")
        build_category(product, precision, limits=None if precision == "fp32" else ANY)
    folders = {precision: build_folder(tmp_path / "build", category, precision) for precision in LIMITS}
    checked = check_engines(folders)
    assert [engine.name for engine in checked] == [
        f"{graph}, {precision}" for precision in LIMITS for graph in ("teacher", "student")
    ]
    features = {
        engine.precision: {tensor.type for tensor in engine.built.inputs if tensor.name != "image"}
        for engine in checked
        if engine.graph.stem == "student"
    }
    assert features == {"fp32": {"FP32"}, "fp16": {"FP16"}, "int8": {"FP32"}}
    sizes = {precision: weight_bytes(folder / "student.onnx") for precision, folder in folders.items()}
    assert sizes["int8"] < sizes["fp32"]
    assert sizes["fp16"] < 0.7 * sizes["fp32"]
