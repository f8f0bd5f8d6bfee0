"""int8 stands in the graph, in the form that TensorRT takes, where the maps bear it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from export.errors import ExportError
from export.graphs.int8 import MIN_CALIBRATION_IMAGES, quantize
from export.manifest import GraphFiles
from train.checkpoint.tensors import Checkpoint


def test_int8_is_calibrated_symmetric_and_by_channel(built: Path) -> None:
    for name in ("teacher", "student"):
        graph = onnx.load(built / "int8" / f"{name}.onnx").graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        quantisers = [node for node in graph.node if node.op_type == "DequantizeLinear"]
        assert quantisers
        assert all((constants[node.input[2]] == 0).all() for node in quantisers)
        weights = [node for node in quantisers if node.input[0] in constants]
        assert weights
        assert all(constants[node.input[1]].size == constants[node.input[0]].shape[0] for node in weights)
        assert all(constants[node.input[0]].dtype == np.int8 for node in weights)


def test_what_int8_changes_too_much_stays_in_float(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([images] * 2)
    strict, loose = (
        quantize(GraphFiles.in_folder(built), many, built_checkpoint.calibration, max_change=change)
        for change in (1e-3, 1e3)
    )
    assert len(loose.in_float) == 0
    assert len(strict.in_float) > 0
    assert strict.change <= 1e-3 or len(strict.in_float) == strict.n_convolutions
    changes = [convolution.change for convolution in strict.in_float]
    assert changes == sorted(changes, reverse=True)
    with pytest.raises(ExportError, match=f"found 3; expected at least {MIN_CALIBRATION_IMAGES}"):
        quantize(GraphFiles.in_folder(built), many[:3], built_checkpoint.calibration)
