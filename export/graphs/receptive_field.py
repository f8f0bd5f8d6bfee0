"""How far a graph looks: the pixels around a position of its outputs on which that position depends.

A large picture is judged in strips with that margin (`model_repository.picture_strips`), which gives what one pass
over all of it gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.errors import VerificationError
from export.tensors import STRIDES, TEACHER_OUTPUTS
from model_repository.picture_strips import STEP

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


def strip_margin(path: Path) -> int:
    """Pixels beside a strip from which a graph must be computed too, a multiple of 32.

    Raises:
        VerificationError: the graph has an operator that looks at whole pictures, or one whose reach is not known.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    margin = max(reach.margin for reach in _reaches(model.graph, path.name))
    return -(-margin // STEP) * STEP


def _reaches(graph: onnx.GraphProto, name: str) -> Iterator[Reach]:
    """The reach of each output along the side where it is larger."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    for axis in (0, 1):  # rows, columns
        reaches = {
            value.name: Reach(_jump_of(value.name), 0, _jump_of(value.name) - 1) for value in graph.input
        }
        for node in graph.node:
            before = [reaches[tensor] for tensor in node.input if tensor in reaches]
            if not before or node.op_type == "Shape":
                continue
            reaches |= dict.fromkeys(node.output, _through(node, before, axis, constants, ranks, name))
        yield from (reaches[output.name] for output in graph.output if output.name in reaches)


def _jump_of(tensor: str) -> int:
    """Pixels from one position of an input to the next."""
    return dict(zip(TEACHER_OUTPUTS, STRIDES, strict=True)).get(tensor, 1)


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
