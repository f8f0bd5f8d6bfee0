"""ONNX files that would read other files or bring operators of their own are refused, wherever in them that hides."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graphs.structure import check_structure
from model_repository import onnx_contents
from model_repository.onnx_contents import OnnxError, require_plain
from tests.model_repository.server_stub import PB_UTILS
from tests.products import ROOT

EXTERNAL, DOMAIN = "keeps weights in other files", r"uses operator domains \['[\w.]+'\]"


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])


def weight(name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(2, np.float32), name)


def external(name: str = "w", location: str = "../../etc/passwd") -> onnx.TensorProto:
    tensor = weight(name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(
    *nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), **options: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "w"], ["y"])], "g", [value("x")], [value("y")]
    )
    graph.initializer.extend(weights or ([weight()] if not nodes else []))
    imports = [
        helper.make_opsetid("", 18),
        *(helper.make_opsetid(name, 1) for name in options.pop("domains", ())),
    ]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **options)


def within_an_if(node: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    """A graph with a branch that holds a node."""
    branches = [helper.make_graph([node], name, [], [value("y")], list(weights)) for name in ("then", "else")]
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    made = model(choice)
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    return made


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def with_function() -> onnx.ModelProto:
    inner = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    function = helper.make_function(
        "own", "F", ["x"], ["y"], [inner], [helper.make_opsetid("com.microsoft", 1)]
    )
    return model(helper.make_node("F", ["x"], ["y"], domain="own"), domains=["own"], functions=[function])


def with_training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().initialization.initializer.append(external())
    return made


def with_sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(external())
    return made


def without_location() -> onnx.ModelProto:
    """External data on a tensor that does not say that it lies elsewhere."""
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    return model(weights=(tensor,))


FOREIGN: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "external weight": (lambda: model(weights=(external(),)), EXTERNAL),
    "external weight of an absolute path": (
        lambda: model(weights=(external(location="/etc/passwd"),)),
        EXTERNAL,
    ),
    "external weight, not said so": (without_location, EXTERNAL),
    "external constant": (lambda: model(constant(external())), EXTERNAL),
    "external weight in a branch": (lambda: within_an_if(constant(weight()), (external(),)), EXTERNAL),
    "external constant in a branch": (lambda: within_an_if(constant(external())), EXTERNAL),
    "external sparse weight": (with_sparse, EXTERNAL),
    "external weight for training": (with_training, EXTERNAL),
    "imported domain": (lambda: model(domains=["com.microsoft"]), DOMAIN),
    "domain of a node": (lambda: model(helper.make_node("X", ["x"], ["y"], domain="evil")), DOMAIN),
    "domain of a node in a branch": (
        lambda: within_an_if(helper.make_node("X", ["x"], ["y"], domain="evil")),
        DOMAIN,
    ),
    "function": (with_function, DOMAIN),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_graph_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = FOREIGN[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(OnnxError, match=reason):
        require_plain(path)
    with pytest.raises(ExportError, match=reason):
        check_structure(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"text, no graph", b"\x3a\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 20, b"\x08\x07"],
)
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(OnnxError, match=r"is empty|is no (whole )?ONNX graph"):
        require_plain(path)


def test_a_graph_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.onnx", model().SerializeToString()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            require_plain(path)
        except OnnxError:
            continue
        onnx.load_model_from_string(whole[:length])  # cut between two fields: protobuf takes it for whole


def test_a_plain_graph_is_taken(tmp_path: Path) -> None:
    for number, made in enumerate((model(), within_an_if(constant(weight())))):
        path = tmp_path / f"{number}.onnx"
        onnx.save(made, path)
        require_plain(path)


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes, as protocol buffers write it."""
    length, head = len(content), bytearray([number << 3 | 2])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + content


@pytest.mark.parametrize(("innermost", "refused"), [(b"", False), (field(5, field(13, b"")), True)])
def test_graphs_in_graphs_are_looked_into_without_a_stack(
    innermost: bytes, refused: bool, tmp_path: Path
) -> None:
    graph = innermost
    for _ in range(1_000):  # a graph in an attribute of a node; protobuf itself gives up after 100
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(7, graph))
    if not refused:
        require_plain(path)
        return
    with pytest.raises(OnnxError, match=EXTERNAL):
        require_plain(path)


def backend_in_a_server(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend as the server imports it: `<version>.model`, its checks beside it, and no checkout on its path."""
    monkeypatch.setitem(sys.modules, "model_repository.onnx_contents", None)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", PB_UTILS)
    monkeypatch.setitem(sys.modules, "onnx_contents", onnx_contents)
    path = ROOT / "export" / "serving" / "backends" / "onnxruntime_model.py"
    spec = importlib.util.spec_from_file_location("1.model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_servers_backend_opens_no_foreign_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(FOREIGN["external weight"][0]().SerializeToString())
    config = '{"input": [{"name": "x"}], "parameters": {}}'
    step = backend_in_a_server(monkeypatch).TritonPythonModel()
    with pytest.raises(ValueError, match=EXTERNAL):
        step.initialize({"model_config": config, "model_repository": str(tmp_path), "model_version": "1"})
