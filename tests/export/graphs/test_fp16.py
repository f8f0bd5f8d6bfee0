"""Half precision stands in the graph, and not where sums are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import VerificationError
from export.graphs.chain import HalfChain, OnnxChain, open_session
from export.graphs.fp16 import (
    FLOAT_CONVOLUTIONS,
    LARGEST_HALF,
    LARGEST_OUTPUT,
    half_nodes,
    to_half,
    watch_overflow,
)
from export.manifest import GraphFiles
from export.tensors import TEACHER_OUTPUTS
from tests.conftest import CATEGORY


def types(values: object) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in values}  # type: ignore[attr-defined]


def test_half_stands_in_the_graph_and_not_where_sums_are(built: Path) -> None:
    teacher, student = (onnx.load(built / "fp16" / f"{name}.onnx") for name in ("teacher", "student"))
    assert types(teacher.graph.output) == dict.fromkeys(TEACHER_OUTPUTS, TensorProto.FLOAT16)
    assert types(student.graph.input) == {"image": TensorProto.UINT8, **types(teacher.graph.output)}
    outputs = types(student.graph.output)
    assert [outputs[f"distance_{stage}"] for stage in (1, 2, 3)] == [TensorProto.FLOAT] * 3
    inferred = types(onnx.shape_inference.infer_shapes(student).graph.value_info)
    convolutions = [node for node in student.graph.node if node.op_type == "Conv"]
    assert [inferred[node.output[0]] for node in convolutions] == [TensorProto.FLOAT] * FLOAT_CONVOLUTIONS + [
        TensorProto.FLOAT16
    ] * (len(convolutions) - FLOAT_CONVOLUTIONS)
    for node in student.graph.node:
        if node.op_type in {"ReduceL2", "ReduceSum", "Div"}:
            assert inferred.get(node.output[0], TensorProto.FLOAT) == TensorProto.FLOAT
    # Statistics of residuals are no weights of convolutions, and stay in float32.
    statistics = sum(
        4 * int(np.prod(tensor.dims)) for tensor in student.graph.initializer if "residuals" in tensor.name
    )
    sizes = [(built / name).stat().st_size - statistics for name in ("fp16/student.onnx", "student.onnx")]
    assert statistics > 0
    assert sizes[0] < 0.7 * sizes[1]


def test_weights_that_no_half_can_hold_are_refused(built: Path) -> None:
    model = onnx.load(built / "teacher.onnx")
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    value = numpy_helper.to_array(weight).copy()
    value.flat[0] = 1e6
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    with pytest.raises(VerificationError, match=r"1e\+06, and half precision ends at 65504"):
        to_half(model, half_outputs=TEACHER_OUTPUTS)


def test_half_is_what_has_convolutions_on_both_sides() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="before"),
        helper.make_node("Conv", ["a", "w"], ["b"], name="first"),
        helper.make_node("Relu", ["b"], ["c"], name="between"),
        helper.make_node("Conv", ["c", "w"], ["d"], name="second"),
        helper.make_node("Relu", ["d"], ["e"], name="after"),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    every = {"first", "between", "second"}
    assert half_nodes(graph, (), float_convolutions=0) == every
    assert half_nodes(graph, ("e",), float_convolutions=0) == every | {"after"}
    assert half_nodes(graph, ("e",), float_convolutions=1) == {"second", "after"}
    assert half_nodes(graph, (), float_convolutions=2) == set()
    assert half_nodes(graph, (), float_convolutions=0, float_behind=("b",)) == {"first"}


def test_watching_for_overflow_changes_no_distance(built: Path, images: NDArray[np.uint8]) -> None:
    files = GraphFiles.in_folder(built / "fp16")
    plain, watched = (chain.open(files).run(images[:3])[0] for chain in (OnnxChain, HalfChain))
    for ours, theirs in zip(watched, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_an_image_reaches_in_half_is_known(built: Path, images: NDArray[np.uint8]) -> None:
    model = onnx.load(built / "fp16" / "teacher.onnx")
    outputs = [*TEACHER_OUTPUTS, LARGEST_OUTPUT]
    session = open_session(watch_overflow(model).SerializeToString())
    *features, reached = session.run(outputs, {"image": images[:2]})
    assert reached.shape == (2,)
    assert (reached >= np.max([np.abs(stage).max(axis=(1, 2, 3)) for stage in features], axis=0)).all()
    assert (reached < LARGEST_HALF).all()


def test_graphs_run_in_onnx_runtime_alike(built: Path, images: NDArray[np.uint8]) -> None:
    features = {}
    for folder in (built, built / "fp16"):
        session = ort.InferenceSession(folder / "teacher.onnx", providers=["CPUExecutionProvider"])
        features[folder.name] = session.run(["teacher_3"], {"image": images})[0].astype(np.float32)
    whole, half = features[CATEGORY], features["fp16"]
    assert np.abs(whole - half).max() < 1e-2 * np.abs(whole).max()
