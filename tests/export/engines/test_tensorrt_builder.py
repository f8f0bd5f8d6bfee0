"""TensorRT's builder: progress, and what is said of what it cannot do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from export.engines.tensorrt_builder import (
    build_engine,
    load_tensorrt,
    load_tensorrt_rtx,
    start,
)
from export.errors import ExportError, VerificationError
from export.records import EngineOptions
from tests.conftest import CATEGORY


def test_an_option_that_this_tensorrt_lacks_is_told(build_dir: Path) -> None:
    graph = build_dir / CATEGORY / "teacher.onnx"
    trt = load_tensorrt_rtx()
    with pytest.raises(VerificationError, match=r"TensorRT parses teacher and builds no engine: .*lean"):
        # TensorRT for RTX comes without the lean runtime that such engines carry.
        build_engine(
            trt,
            graph,
            name="teacher",
            options=EngineOptions(version_compatible=True),
            compute_capability="SM89",
        )


def test_progress_rises_to_the_end(build_dir: Path) -> None:
    seen: list[float] = []
    built = build_engine(
        load_tensorrt_rtx(),
        build_dir / CATEGORY / "teacher.onnx",
        name="teacher",
        options=EngineOptions(),
        compute_capability="SM89",
        on_progress=lambda phase, share: seen.append(share),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1
    again = build_engine(
        load_tensorrt_rtx(),
        build_dir / CATEGORY / "teacher.onnx",
        name="teacher",
        options=EngineOptions(),
        compute_capability="SM89",
        timing_cache=built.timing_cache,
    )
    assert again.n_layers == built.n_layers


def test_a_file_without_a_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "teacher.onnx").write_bytes(b"")
    with pytest.raises(VerificationError, match="TensorRT finds no graph in"):
        build_engine(
            load_tensorrt_rtx(),
            tmp_path / "teacher.onnx",
            name="teacher",
            options=EngineOptions(),
            compute_capability="SM89",
        )


def test_old_and_broken_tensorrts_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "8.6.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(ExportError, match=r"TensorRT 8\.6\.1 knows no strongly typed networks"):
        load_tensorrt()

    def no_driver(logger: object) -> None:
        raise TypeError("factory function returned nullptr")

    with pytest.raises(
        ExportError, match=r"TensorRT 8\.6\.1 does not start here .* a driver that is new enough"
    ):
        start(old, no_driver, None)
