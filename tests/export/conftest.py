"""Builds in all precisions, builds to spoil, and NVIDIA's own builder where TensorRT itself would need a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import export.engines.build as engine_module
from export.engines.tensorrt_builder import load_tensorrt_rtx
from tests.conftest import CATEGORY, FitTiny
from tests.export.ahead_of_time import ADA, build_ahead_of_time
from tests.export.three_precisions import build
from tests.once import made_once
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData
from train.data.pictures.loading import load_images


@pytest.fixture(scope="session", autouse=True)
def _graphs_written_once(graphs_written_once: None) -> None:
    """In all tests of this stage."""


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


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData, fit_tiny: FitTiny) -> Path:
    """A folder with runs/ and build/ in all three precisions; it has images enough for int8; not to be changed."""

    def make(work: Path) -> None:
        fit_tiny(tiny_data, work / "runs" / CATEGORY, holdout_ratio=0.01, batch_size=2)
        for precision in ("fp16", "int8"):
            build(work, precision)

    return made_once(tmp_path_factory, "product", make)


@pytest.fixture(scope="session")
def built(product: Path) -> Path:
    """The product's builds; fp16/ and int8/ lie in the float32 build."""
    return product / "build" / CATEGORY


@pytest.fixture(scope="session")
def built_checkpoint(product: Path) -> Checkpoint:
    """What the product's builds were made from."""
    return load_checkpoint(product / "runs" / CATEGORY / "checkpoint.safetensors")


@pytest.fixture(scope="session")
def images(tiny_data: CategoryData) -> NDArray[np.uint8]:
    """The test images [11, 64, 64, 3] uint8."""
    return load_images([image.path for image in tiny_data.test], image_size=64, strict=True).pixels
