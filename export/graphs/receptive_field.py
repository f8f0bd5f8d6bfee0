"""How far a graph looks: the pixels around a position of its outputs on which that position depends.

A large picture is judged in strips with that margin (`model_repository.picture_strips`), which gives what one pass
over all of it gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.errors import VerificationError
from export.tensors import STRIDES, TEACHER_OUTPUTS

# What looks at one position alone, whatever lies around it; constants beside a map change nothing.
POINTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Elu", "Erf",
        "Exp", "Expand", "Flatten", "Gather", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
        "MatMul", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Relu",
        "Reshape", "Sigmoid", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
REDUCING = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"})
WINDOWS = frozenset({"Conv", "AveragePool", "MaxPool"})
SIDES = {2, 3}  # axes of rows and columns in [B, C, H, W]
FLOAT_BYTES = 4
INPUT_JUMPS = {"image": 1, **dict(zip(TEACHER_OUTPUTS, STRIDES, strict=True))}


@dataclass(frozen=True)
class Reach:
    """Of a map whose positions lie `jump` pixels apart: position p depends on pixels p * jump - before to + after."""

    jump: int
    before: int
    after: int

    @property
    def margin(self) -> int:
        """Pixels beside a strip on which the strip depends, of its worse side."""
        return max(self.before, self.after - self.jump + 1)

    def with_window(self, size: int, stride: int, padding: int) -> Reach:
        """Through a window of so many positions, the first of which is `padding` positions before the map."""
        before = self.before + padding * self.jump
        return Reach(self.jump * stride, before, self.after + (size - 1 - padding) * self.jump)


def strip_step(graph: onnx.GraphProto, reaches: Mapping[str, Reach]) -> int:
    """Pixels at whose multiples strips can begin: each input and output has a position of its own there."""
    return math.lcm(
        *(reaches[value.name].jump for value in (*graph.input, *graph.output) if value.name in reaches)
    )


def strip_margin(graph: onnx.GraphProto, reaches: Mapping[str, Reach]) -> int:
    """Pixels beside a strip from which a graph must be computed too, a multiple of `strip_step`."""
    margin, step = (
        max(reaches[output.name].margin for output in graph.output if output.name in reaches),
        strip_step(graph, reaches),
    )
    return -(-margin // step) * step


def bytes_per_pixel(graph: onnx.GraphProto, reaches: Mapping[str, Reach]) -> int:
    """Memory that a run needs at once for a pixel: what the operator with the most takes in and gives."""
    fixed = {value.name: _fixed_dims(value) for value in _values(graph)}
    jumps = {name: reach.jump for name, reach in reaches.items()}
    bytes_of = {name: FLOAT_BYTES * math.prod(fixed.get(name, ())) / jump**2 for name, jump in jumps.items()}
    return math.ceil(
        max(sum(bytes_of.get(tensor, 0) for tensor in {*node.input, *node.output}) for node in graph.node)
    )


def find_reaches(
    graph: onnx.GraphProto, name: str, *, jumps: Mapping[str, int] = INPUT_JUMPS
) -> dict[str, Reach]:
    """The reach of each map of a graph whose shapes are inferred, along the side where it is larger.

    Args:
        graph: of float activations [B, C, h, w] and maps [B, h, w].
        name: of its file.
        jumps: pixels from one position of an input to the next.

    Raises:
        VerificationError: the graph has an operator that looks at whole pictures, or one whose reach is not known.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in _values(graph)}
    sides = []
    for axis in (0, 1):  # rows, columns
        reaches = {value.name: _of_input(jumps[value.name]) for value in graph.input}
        for node in graph.node:
            before = [reaches[tensor] for tensor in node.input if tensor in reaches]
            if not before or node.op_type == "Shape":
                continue
            reaches |= dict.fromkeys(node.output, _through(node, before, axis, constants, ranks, name))
        sides.append(reaches)
    return {
        tensor: max((side[tensor] for side in sides), key=lambda reach: reach.margin) for tensor in sides[0]
    }


def _of_input(jump: int) -> Reach:
    return Reach(jump, 0, jump - 1)


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.value_info, *graph.output]


def _fixed_dims(value: onnx.ValueInfoProto) -> list[int]:
    """The dimensions that are numbers: channels, where batch, rows and columns are any."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]


def _through(
    node: onnx.NodeProto,
    before: list[Reach],
    axis: int,
    constants: dict[str, NDArray[np.generic]],
    ranks: dict[str, int],
    name: str,
) -> Reach:
    """The reach of a node's output from those of its inputs."""
    both = _united(before, node, name)
    if node.op_type in WINDOWS:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise _unknown(node, name)
        kernel = given.get("kernel_shape") or constants[node.input[1]].shape[2:]
        window = (kernel[axis] - 1) * given.get("dilations", (1, 1))[axis] + 1
        return both.with_window(window, given.get("strides", (1, 1))[axis], given.get("pads", (0,) * 4)[axis])
    if node.op_type == "Pad":
        pads = constants.get(node.input[1])
        if pads is None or pads.size != 8:
            raise _unknown(node, name)
        shift = int(pads[2 + axis]) * both.jump  # a position lies so many pixels later than it did
        return Reach(both.jump, both.before + shift, both.after - shift)
    if node.op_type in REDUCING:
        axes = constants.get(node.input[1]) if len(node.input) > 1 else None
        rank = ranks.get(node.input[0], 0)
        if axes is not None and rank and not (rank == 4 and SIDES & {int(at) % rank for at in axes.ravel()}):
            return both
        raise VerificationError(
            f"{name} looks at whole pictures ({node.name}, {node.op_type}), so that crops tell it something else; take "
            "other backbones, such as those of the preset edge, or a fixed --image-size."
        )
    if node.op_type not in POINTWISE:
        raise _unknown(node, name)
    return both


def _united(before: list[Reach], node: onnx.NodeProto, name: str) -> Reach:
    """Of several inputs, the farthest of each side."""
    jumps = {reach.jump for reach in before}
    if len(jumps) > 1:
        raise _unknown(node, name)
    return Reach(jumps.pop(), max(r.before for r in before), max(r.after for r in before))


def _unknown(node: onnx.NodeProto, name: str) -> VerificationError:
    return VerificationError(
        f"How far {name} looks is not known ({node.name}, {node.op_type}), so that pictures of any size cannot be "
        "judged in strips; take other backbones, such as those of the preset edge, or a fixed --image-size."
    )
