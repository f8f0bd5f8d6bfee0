"""The tensors and batches of an ONNX file; apart from `model_files`, since publishing must not load onnx."""

from __future__ import annotations

from pathlib import Path

import onnx
from tritonclient.utils import np_to_triton_dtype

from export.serving.model_files import UNBOUNDED, ModelFile
from export.tensors import TensorSpec


def read_onnx_file(path: Path) -> ModelFile:
    """What an ONNX graph takes and gives; a batch that is a number in the graph is the only one it takes."""
    graph = onnx.load(path, load_external_data=False).graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    fixed = batch.dim_value if batch.HasField("dim_value") else None
    return ModelFile(
        inputs=tuple(_spec_of(value) for value in graph.input),
        outputs=tuple(_spec_of(value) for value in graph.output),
        min_batch=fixed or 1,
        max_batch=fixed or UNBOUNDED,
    )


def _spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)[1:]
    data_type = np_to_triton_dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return TensorSpec(value.name, data_type or str(tensor.elem_type), shape)
