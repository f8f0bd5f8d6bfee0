"""Graphs that take pictures of any size: their shapes, how far they look, and strips beside one pass in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from timm.layers import AvgPool2dSame, Conv2dSame, create_pool2d
from torch import nn

from export.engines.check import tensorrt_verdict
from export.errors import VerificationError
from export.graphs.chain import OnnxChain, open_session
from export.graphs.fp16 import connected, to_half, watch_overflow
from export.graphs.int8 import _Pair
from export.graphs.parts import MAX_DIFFERENCE, _check, opened
from export.graphs.receptive_field import find_reaches, strip_margin
from export.graphs.static_padding import with_static_padding
from export.manifest import GraphFiles, read_manifest
from export.product import ProductPaths
from export.records import GraphPart
from export.serving.onnx_files import read_onnx_file
from export.tensors import TEACHER_OUTPUTS
from model_repository.picture_strips import in_strips, run_parts, strips
from train.checkpoint.tensors import load_checkpoint
from train.method.receptive_field import chain_margin

pytest_plugins = ["tests.tiny_native"]


@dataclass(frozen=True)
class Native:
    """A checkpoint, its graphs, and the parts that they run in."""

    checkpoint: Any
    files: GraphFiles
    parts: dict[str, list[GraphPart]]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Distance maps by PyTorch, in the precision of its networks."""
        image, config = torch.from_numpy(images), self.checkpoint.config
        with torch.inference_mode():
            features = self.checkpoint.teacher(image)
            distances = self.checkpoint.student.distances(image, features, scale=config.distance_scale)
        return [distance.numpy() for distance in distances]


@pytest.fixture(scope="module")
def native(native_product: ProductPaths) -> Native:
    files = GraphFiles.in_folder(native_product.build)
    return Native(
        load_checkpoint(native_product.checkpoint), files, read_manifest(native_product.build).parts
    )


def test_rows_and_columns_are_any(native: Native) -> None:
    for path in native.files:
        file = read_onnx_file(path)
        shapes = {spec.name: spec.shape for spec in (*file.inputs, *file.outputs)}
        assert shapes["image"] == (-1, -1, 3)
        assert shapes["teacher_2"] == (native.checkpoint.teacher.channels[1], -1, -1)
    assert shapes["distance_3"] == (-1, -1)


def test_pictures_of_all_shapes_as_in_pytorch(native: Native) -> None:
    chain = OnnxChain.open(native.files)
    for shape in ((1, 32, 32), (1, 160, 224), (3, 96, 64)):
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        distances, ids = chain.run(images)
        assert ids.tolist() == [[native.checkpoint.weights_id]] * shape[0]
        for ours, theirs in zip(distances, native.run(images), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * float(theirs.max()))


@pytest.mark.parametrize("shape", [(640, 64), (64, 640)])
def test_strips_are_one_pass_in_float64(native: Native, shape: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (1, *shape, 3), np.uint8)
    margin = chain_margin(native.checkpoint.teacher, native.checkpoint.student)
    budget = 64 * 448
    assert len(strips(*shape, margin=margin, pixels=budget)) > 1
    with in_double(native) as double:
        whole = double.run(images)
        assert whole[0].dtype == np.float64
        for ours, theirs in zip(
            in_strips(double.run, images, margin=margin, pixels=budget), whole, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=0)
        narrow = in_strips(double.run, images, margin=32, pixels=64 * 160)
        assert not np.allclose(narrow[2], whole[2], rtol=1e-9, atol=0)  # the margin is needed


@pytest.mark.parametrize("shape", [(640, 96), (96, 640)])
def test_parts_in_thin_strips_are_one_pass_in_float64(native: Native, shape: tuple[int, int]) -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, *shape, 3), np.uint8)
    with in_double(native) as double:
        whole = double.run(images)

    def served(parts: dict[str, list[GraphPart]]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {"image": images}
        for graph in ("teacher", "student"):
            folder = native.files.teacher.parent
            found |= run_parts(opened(parts[graph], folder, strip_pixels=1), found)
        return found

    ours = served(native.parts)
    assert ours["release_id"].tolist() == [[native.checkpoint.weights_id]]
    for stage, theirs in enumerate(whole, start=1):
        np.testing.assert_allclose(ours[f"distance_{stage}"], theirs, rtol=0, atol=1e-4 * theirs.max())
    short = {
        graph: [part.model_copy(update={"strip_margin": 0}) for part in parts]
        for graph, parts in native.parts.items()
    }
    assert not np.allclose(served(short)["distance_3"], whole[2], rtol=0, atol=1e-4 * whole[2].max())


def test_graphs_are_cut_at_the_first_two_stages(native: Native) -> None:
    ends = {graph: [part.outputs for part in parts] for graph, parts in native.parts.items()}
    assert ends["teacher"] == [("teacher_1",), ("teacher_2",), ("teacher_3",)]
    assert [outputs[-1] for outputs in ends["student"]][::2] == [
        "release_id",
        ends["student"][2][-1],
        "distance_3",
    ]
    assert ends["student"][1::2] == [("distance_1",), ("distance_2",)]
    before, *_, last = native.parts["teacher"]
    assert before.bytes_per_pixel > 4 * last.bytes_per_pixel


def test_strips_are_held_to_the_graph_when_they_are_made(native: Native) -> None:
    image = np.random.default_rng(3).integers(0, 256, (1, 320, 96, 3), np.uint8)
    _check(native.files, native.parts, image, MAX_DIFFERENCE)
    short = {
        graph: [part.model_copy(update={"strip_margin": 0}) for part in parts]
        for graph, parts in native.parts.items()
    }
    with pytest.raises(
        VerificationError, match=r"^teacher\.onnx in parts gives another teacher_1 than in one"
    ):
        _check(native.files, short, image, MAX_DIFFERENCE)


def test_the_distance_stays_in_float(native: Native) -> None:
    """Of squares that are nearly alike, half precision and int8 leave nothing."""
    whole = onnx.load(native.files.student)
    after = connected(whole.graph.node, set(), set(TEACHER_OUTPUTS), forward=True)
    ours = {node.name for node in whole.graph.node if node.op_type == "Conv"} & after
    assert len(ours) == 6  # of each stage one for the spread, and one for all usual differences
    half = to_half(whole, half_inputs=TEACHER_OUTPUTS)
    types = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    computed = {node.name: types[node.output[0]] for node in half.graph.node if node.op_type == "Conv"}
    assert {computed[name] for name in ours} == {TensorProto.FLOAT}
    assert TensorProto.FLOAT16 in computed.values()
    open_session(watch_overflow(half).SerializeToString())  # it refused what has no batch
    pair = _Pair({path.stem: onnx.load(path) for path in native.files}, {})
    assert not ours & set(pair.convolutions("student"))


@contextmanager
def in_double(native: Native) -> Iterator[Native]:
    """The same with networks in double precision."""
    checkpoint = native.checkpoint
    networks = {"teacher": checkpoint.teacher.double(), "student": checkpoint.student.double()}
    try:
        yield Native(SimpleNamespace(config=checkpoint.config, **networks), native.files, native.parts)
    finally:
        checkpoint.teacher.float()
        checkpoint.student.float()


def test_the_layers_look_at_least_as_far_as_the_graphs(native: Native) -> None:
    margin = chain_margin(native.checkpoint.teacher, native.checkpoint.student)
    margins = [margin_of(path) for path in native.files]
    assert max(margins) <= margin <= sum(margins)


def margin_of(path: Path) -> int:
    """Pixels beside a strip of a whole graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    return strip_margin(graph, find_reaches(graph, path.name))


def test_tensorrt_takes_them(native: Native) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert "teacher" in str(tensorrt_verdict(native.files, "fp32"))


class Net(nn.Module):
    """TensorFlow's padding before convolutions and pools with a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            Conv2dSame(3, 4, 3, stride=2),
            Conv2dSame(4, 4, 5, stride=2, groups=4, bias=False),
        )
        self.pools = nn.Sequential(
            create_pool2d("max", 3, stride=2, padding="same"), AvgPool2dSame(2, stride=2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pools(self.second(self.first(x)))


def test_static_padding_is_tensorflows() -> None:
    network = Net().eval()
    fixed = with_static_padding(network)
    assert isinstance(network.first, Conv2dSame)
    assert not any(isinstance(module, Conv2dSame) for module in fixed.modules())
    for shape in ((32, 96), (64, 160)):
        image = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(fixed(image), network(image), rtol=0, atol=0)
    plain = nn.Sequential(nn.Conv2d(3, 3, 3))
    assert with_static_padding(plain) is plain


def written(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "rows", "columns"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_how_far_a_graph_looks(tmp_path: Path) -> None:
    weight = np.zeros((3, 3, 5, 5), np.float32)
    convolutions = [
        helper.make_node("Conv", ["image", "w"], ["half"], strides=[2, 2], pads=[1, 2, 2, 1]),
        helper.make_node("Relu", ["half"], ["relu"]),
        helper.make_node("Conv", ["relu", "w"], ["out"], pads=[12, 2, 12, 2], dilations=[6, 1]),
    ]
    # Rows: 1 pixel, then 12 positions of 2 pixels before; after 5 - 1 - 1 = 3, then as many, less one of the own two.
    assert margin_of(written(tmp_path / "a.onnx", convolutions, {"w": weight})) == 26
    convolutions[2] = helper.make_node("Conv", ["relu", "w"], ["out"], pads=[32, 2, 32, 2], dilations=[16, 1])
    assert margin_of(written(tmp_path / "b.onnx", convolutions, {"w": weight})) == 66


def test_what_looks_at_whole_pictures_is_refused(tmp_path: Path) -> None:
    mean = [helper.make_node("ReduceMean", ["image", "axes"], ["out"], name="squeeze")]
    path = written(tmp_path / "student.onnx", mean, {"axes": np.array([2, 3])})
    with pytest.raises(
        VerificationError, match=r"^student\.onnx looks at whole pictures \(squeeze, ReduceMean\)"
    ):
        margin_of(path)
    with pytest.raises(VerificationError, match=r"How far student\.onnx looks is not known \(up, Resize\)"):
        margin_of(written(path, [helper.make_node("Resize", ["image"], ["out"], name="up")], {}))
