"""The padding of TensorFlow's networks as constants, for graphs that take pictures of any size.

timm's `tf_` networks pad before each convolution with a stride by what the input's size asks for. Of a side that the
stride divides, as every side here is a multiple of 32, that is always the same: the rest goes to the right and below.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from timm.layers import AvgPool2dSame, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def with_static_padding(network: Network) -> Network:
    """A copy of a network, with the same weights, whose padding does not ask for its input's size.

    For a network without such layers it is the network itself.
    """
    if not any(
        isinstance(module, Conv2dSame | MaxPool2dSame | AvgPool2dSame) for module in network.modules()
    ):
        return network
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Conv2dSame):
                setattr(parent, name, _padded(module, _plain_convolution(module), value=0.0))
            elif isinstance(module, MaxPool2dSame):
                plain = nn.MaxPool2d(module.kernel_size, module.stride, dilation=module.dilation)
                setattr(parent, name, _padded(module, plain, value=-float("inf")))
            elif isinstance(module, AvgPool2dSame):
                setattr(
                    parent, name, _padded(module, nn.AvgPool2d(module.kernel_size, module.stride), value=0.0)
                )
    return network


def _padded(layer: nn.Module, plain: nn.Module, *, value: float) -> nn.Module:
    """What a layer pads, as a layer of its own before its plain counterpart."""
    kernel, stride, dilation = (
        _pair(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")
    )
    padding: list[int] = []
    for axis in (1, 0):  # columns first, as torch wants it
        total = max((kernel[axis] - 1) * dilation[axis] + 1 - stride[axis], 0)
        padding += [total // 2, total - total // 2]
    return nn.Sequential(nn.ConstantPad2d(tuple(padding), value), plain).train(layer.training)  # type: ignore[arg-type]


def _plain_convolution(layer: Conv2dSame) -> nn.Conv2d:
    """The same convolution without padding."""
    plain = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value
