"""TensorRT for RTX takes the graphs, or says which node it refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
import pytest

from export.engines.check import check_engines, check_table, keep_engine
from export.errors import ExportError, VerificationError


def test_tensorrt_takes_every_precision(built: Path) -> None:
    builds = {"fp32": built, "fp16": built / "fp16", "int8": built / "int8"}
    checked = check_engines(builds)
    assert [engine.name for engine in checked] == [
        f"{graph}, {precision}" for precision in builds for graph in ("teacher", "student")
    ]
    assert all(len(engine.built.data) > 0 for engine in checked)
    half = checked[3]
    assert [tensor.type for tensor in half.built.inputs] == ["UINT8", "FP16", "FP16", "FP16"]
    assert check_table(checked).row_count == 6


def test_a_kept_engine_lies_beside_its_graph(built: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(built / "fp16", tmp_path / "build"))
    teacher, _ = check_engines({"fp16": work})
    assert keep_engine(teacher) == work / "teacher.rtx"
    assert (work / "teacher.rtx").read_bytes() == teacher.built.data


def test_without_tensorrt_it_says_what_to_install(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ExportError, match=r"is not installed; `pip install 'astmfr\[engine-check\]'`"):
        check_engines({"fp32": built})


def test_a_graph_that_tensorrt_refuses_is_told_by_its_node(built: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(built, tmp_path / "build"))
    model = onnx.load(work / "teacher.onnx")
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    transpose.op_type = "NoSuchOperator"
    onnx.save(model, work / "teacher.onnx")
    with pytest.raises(VerificationError, match=r"TensorRT refuses teacher, fp32: node .*NoSuchOperator"):
        check_engines({"fp32": work})
