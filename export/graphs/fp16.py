"""Half precision written into a graph: what lies between convolutions in FP16, all around it in FP32.

TensorRT takes types from the graph alone from version 11 on, so the graph has to carry them. Normalisation comes
before the first convolution and the distance after the last one, so both stay in FP32: bytes minus their mean, and
sums over hundreds of channels, lose too much in half. onnxruntime's own converter cannot be used: when it has to leave
these nodes in FP32, it writes a graph whose nodes are out of order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import VerificationError

# Rounding at the very front grows through all that follows: with these in float32 the error of `edge`'s anomaly maps
# is 0.5 % of their spread, with all of them in half 0.9 %.
FLOAT_CONVOLUTIONS = 3
LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_OUTPUT = "largest_half"  # of a graph that `watch_overflow` wrote


def to_half(
    model: onnx.ModelProto, *, half_inputs: Sequence[str] = (), half_outputs: Sequence[str] = ()
) -> onnx.ModelProto:
    """A copy of a float32 model that computes in half between its convolutions.

    Args:
        model: every node has a name of its own.
        half_inputs: inputs to declare FP16; float32 nodes that read them read a cast.
        half_outputs: outputs to give as FP16; what leads from a convolution to them is computed in half.

    Raises:
        VerificationError: a weight is larger than half precision can hold.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    declared = (*graph.input, *graph.output)
    floats = {
        value.name
        for value in (*declared, *graph.value_info)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    halves = half_nodes(graph, half_outputs, float_behind=half_inputs)
    for value in declared:
        if value.name in (*half_inputs, *half_outputs):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    is_half = {
        *half_inputs,
        *(output for node in graph.node if node.name in halves for output in node.output),
    }

    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    casts: set[str] = set()
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        in_half = node.name in halves
        for position, name in enumerate(original.input):
            if name in constants:
                if in_half and constants[name].data_type == TensorProto.FLOAT:
                    node.input[position] = _half_constant(graph, constants, name)
            elif name in floats and in_half != (name in is_half):
                cast = f"{name}_as_{'half' if in_half else 'float'}"
                if cast not in casts:
                    casts.add(cast)
                    wanted = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
                    nodes.append(helper.make_node("Cast", [name], [cast], name=f"cast_{cast}", to=wanted))
                node.input[position] = cast
        nodes.append(node)

    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # of the old types
    _drop_unused_constants(graph)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def half_nodes(
    graph: onnx.GraphProto,
    half_outputs: Sequence[str],
    *,
    float_convolutions: int = FLOAT_CONVOLUTIONS,
    float_behind: Sequence[str] = (),
) -> set[str]:
    """Names of the nodes to compute in half: convolutions, and all nodes between two of them.

    A node between a convolution and one of `half_outputs` counts too. The first `float_convolutions` do not count as
    convolutions, nor do those to which the inputs `float_behind` lead: they are of the distance, which of pictures of
    any size is one of squares that are nearly alike.
    """
    nodes = list(graph.node)
    convolutions = {
        node.name for node in [node for node in nodes if node.op_type == "Conv"][float_convolutions:]
    } - connected(nodes, set(), set(float_behind), forward=True)
    behind = connected(nodes, convolutions, set(), forward=True)
    ahead = connected(nodes[::-1], convolutions, set(half_outputs), forward=False)
    return behind & ahead


def watch_overflow(model: onnx.ModelProto) -> onnx.ModelProto:
    """A half-precision model that also gives `LARGEST_OUTPUT`, [B]: the largest magnitude of each image's halves.

    A GPU turns what half precision cannot hold into infinity. On a CPU, ONNX Runtime computes the same nodes in float32
    and rounds nothing between them, so that its distances alone would not show it.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    tensors = {
        value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)
    }
    halves = [
        name
        for name in (
            *(value.name for value in graph.input),
            *(name for node in graph.node for name in node.output),
        )
        if name in tensors and tensors[name].elem_type == TensorProto.FLOAT16
    ]
    largest = []
    for index, name in enumerate(halves):
        magnitude, axes = f"{LARGEST_OUTPUT}_abs_{index}", f"{LARGEST_OUTPUT}_axes_{index}"
        rest = np.arange(1, len(tensors[name].shape.dim), dtype=np.int64)  # all but the batch
        graph.initializer.append(numpy_helper.from_array(rest, axes))
        largest.append(f"{LARGEST_OUTPUT}_{index}")
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [magnitude], name=magnitude),
                helper.make_node("ReduceMax", [magnitude, axes], [largest[-1]], name=largest[-1], keepdims=0),
            )
        )
    graph.node.append(helper.make_node("Max", largest, [LARGEST_OUTPUT], name=LARGEST_OUTPUT))
    graph.output.append(helper.make_tensor_value_info(LARGEST_OUTPUT, TensorProto.FLOAT16, [None]))
    return model


def connected(
    nodes: Sequence[onnx.NodeProto], starts: set[str], tensors: set[str], *, forward: bool
) -> set[str]:
    """Names of the nodes in `starts`, and of those that they, or `tensors`, lead to in this direction."""
    connected = set()
    for node in nodes:
        towards, onwards = (node.input, node.output) if forward else (node.output, node.input)
        if node.name in starts or not tensors.isdisjoint(towards):
            connected.add(node.name)
            tensors.update(onwards)
    return connected


def _half_constant(graph: onnx.GraphProto, constants: dict[str, TensorProto], name: str) -> str:
    """The name of a constant's copy in half, made once."""
    half_name = f"{name}_half"
    if half_name not in constants:
        value = numpy_helper.to_array(constants[name])
        largest = float(np.abs(value).max(initial=0))
        if not largest <= LARGEST_HALF:
            raise VerificationError(
                f"{name} holds {largest:.3g}, and half precision ends at {LARGEST_HALF:.0f}; export with "
                "--precision fp32."
            )
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), half_name))
        constants[half_name] = graph.initializer[-1]
    return half_name


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    inputs = {name for node in graph.node for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in inputs]
    del graph.initializer[:]
    graph.initializer.extend(used)
