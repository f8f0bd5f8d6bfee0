"""Builds to spoil, and NVIDIA's own builder where TensorRT itself would need a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import export.engines.build as engine_module
from export.engines.tensorrt_builder import load_tensorrt_rtx
from tests.export.ahead_of_time import ADA, build_ahead_of_time


@pytest.fixture
def build_dir(tiny_build: Path, tmp_path: Path) -> Path:
    """A copy of the tiny build."""
    return Path(shutil.copytree(tiny_build, tmp_path / "build"))


@pytest.fixture
def rtx_in_place_of_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX, of the same API, building ahead of time where `export engine` wants TensorRT and a GPU."""
    monkeypatch.setattr(engine_module, "load_tensorrt", load_tensorrt_rtx)
    monkeypatch.setattr(engine_module, "require_gpu", lambda: ADA)
    monkeypatch.setattr(engine_module, "build_engine", build_ahead_of_time)
