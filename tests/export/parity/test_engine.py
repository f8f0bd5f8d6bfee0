"""TensorRT's engines as judges: fused as the graphs are; what only a GPU can show is marked `gpu`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.engines.build import build_category_engines
from export.engines.gpu import require_gpu
from export.engines.tensorrt_builder import load_tensorrt
from export.errors import ExportError
from export.graphs.chain import open_session
from export.manifest import GraphFiles, build_folder
from export.parity.engine import EnginePair, engine_judge
from export.parity.judges import GraphJudge
from export.records import EngineOptions
from tests.conftest import CATEGORY
from train.checkpoint.tensors import Checkpoint


class OnnxEngine:
    """A graph in an engine's place."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = [tensor.name for tensor in self._session.get_outputs()]
        values = self._session.run(outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(outputs, values, strict=True)}


def test_engines_are_fused_as_graphs_are(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "cuda", lambda tensor: tensor)
    teacher, student = (OnnxEngine(built / f"{name}.onnx") for name in ("teacher", "student"))
    engines = EnginePair(teacher, student)  # type: ignore[arg-type]
    judge = GraphJudge("TensorRT", engines.run, built_checkpoint.calibration, batch_size=4)
    expected = GraphJudge.of_onnx("fp32", GraphFiles.in_folder(built), built_checkpoint.calibration).maps(
        images
    )
    np.testing.assert_allclose(judge.maps(images), expected, rtol=0, atol=1e-5)
    other = replace(judge, calibration=replace(judge.calibration, weights_id=1))
    with pytest.raises(ExportError, match=r"TensorRT answers for weights .*; expected 1"):
        other.maps(images)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_judge_as_onnx_runtime_does(
    precision: str, product: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    """TensorRT's engines on the GPU beside ONNX Runtime on the CPU, at batches 1, 3 and 8."""
    try:
        load_tensorrt()
        require_gpu()
    except ExportError as error:
        pytest.skip(error.message)
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} has no CUDA")
    build_dir = Path(shutil.copytree(product / "build", tmp_path / "build"))
    build_category_engines(CATEGORY, precision, build_dir=build_dir, options=EngineOptions(), force=False)
    folder = build_folder(build_dir, CATEGORY, precision)
    expected = GraphJudge.of_onnx(precision, GraphFiles.in_folder(folder), built_checkpoint.calibration)
    engine = engine_judge(folder, built_checkpoint.calibration)
    for batch in (1, 3, 8):
        difference = np.abs(engine.maps(images[:batch]) - expected.maps(images[:batch])).max()
        assert difference <= {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}[precision]
