"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3), for training on a CPU.

A tile of 4 x 4 results takes 36 products in place of 144 (Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", 2016):

    y = A^T [ (G w G^T) * (B^T x B) ] A

with x a 6 x 6 tile of the input, tiles overlapping by 2, and the product over channels a matrix product for
each of the 36 places. The backward pass transposes every step and so saves as much. PyTorch's CPU
convolutions do not do this, its CUDA ones do. The result is the convolution's within a relative error of 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

WINOGRAD_CHANNELS = 96  # with fewer, its transforms cost more than its products save
OUTPUT_SIDE = 4  # of a tile
INPUT_SIDE = 6
CHUNK_TILES = 256  # transformed at a time: enough for the matrix products, few enough to stay in the cache

_INPUT_SIDEWAYS = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ]
)
_WEIGHT_SIDEWAYS = torch.tensor(
    [
        [1 / 4, 0.0, 0.0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0.0, 0.0, 1.0],
    ]
)
_OUTPUT_SIDEWAYS = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ]
)
# Both sides of a tile at once, a tile being one column: M x M^T is kron(M, M) times x.
INPUT_TRANSFORM = torch.kron(_INPUT_SIDEWAYS, _INPUT_SIDEWAYS)  # [36, 36], B^T
WEIGHT_TRANSFORM = torch.kron(_WEIGHT_SIDEWAYS, _WEIGHT_SIDEWAYS)  # [36, 9], G
OUTPUT_TRANSFORM = torch.kron(_OUTPUT_SIDEWAYS, _OUTPUT_SIDEWAYS)  # [16, 36], A^T


@contextmanager
def winograd_convolutions(blocks: nn.Module) -> Iterator[int]:
    """Within it, wide convolutions in training mode are computed by `winograd_conv3x3`.

    Args:
        blocks: on the CPU in float32. Its convolutions have 3 x 3 kernels, padding 1 and a bias, as the generation
            blocks' have; those with fewer than `WINOGRAD_CHANNELS` channels in or out stay as they are.

    Yields:
        How many convolutions are wide.
    """
    layers = [module for module in blocks.modules() if isinstance(module, nn.Conv2d)]
    wide = [layer for layer in layers if min(layer.in_channels, layer.out_channels) >= WINOGRAD_CHANNELS]
    for layer in wide:
        layer.__dict__["forward"] = _fast_forward(layer, layer.forward)
    try:
        yield len(wide)
    finally:
        for layer in wide:
            del layer.__dict__["forward"]


def _fast_forward(layer: nn.Conv2d, plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(feature: Tensor) -> Tensor:
        if not layer.training:  # a validation on the way is computed as the finished student will be
            return plain(feature)
        assert layer.bias is not None
        return winograd_conv3x3(feature, layer.weight, layer.bias)

    return forward


def winograd_conv3x3(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.conv2d` with a 3 x 3 kernel and padding 1, on the CPU in float32.

    Args:
        feature: [B, C, h, w]; fastest in channels_last.
        weight: [D, C, 3, 3].
        bias: [D].

    Returns:
        [B, D, h, w] in channels_last.
    """
    result: Tensor = _WinogradConv3x3.apply(feature, weight, bias)
    return result


class _WinogradConv3x3(torch.autograd.Function):
    """Tensors inside are channels last, [B, h, w, C], so that a tile's rows are copied whole."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, _, height, width = feature.shape
        down, across = _tile_counts(height, width)
        below, right = OUTPUT_SIDE * down - height, OUTPUT_SIDE * across - width
        padded = pad(feature.permute(0, 2, 3, 1), (0, 0, 1, 1 + right, 1, 1 + below))
        weights = _transform_weight(weight)
        result = feature.new_empty(n, down, OUTPUT_SIDE, across, OUTPUT_SIDE, len(weight))
        for chunk in _chunks(n, down * across):
            products = torch.bmm(_transform_input(padded[chunk]), weights)
            tiles = (OUTPUT_TRANSFORM @ products.flatten(1)).view(
                OUTPUT_SIDE, OUTPUT_SIDE, -1, down, across, len(weight)
            )
            result[chunk] = tiles.permute(2, 3, 0, 4, 1, 5)
        ctx.save_for_backward(padded, weights)
        whole = result.view(n, OUTPUT_SIDE * down, OUTPUT_SIDE * across, len(weight))
        return (whole[:, :height, :width] + bias).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padded, weights = ctx.saved_tensors
        n, _, height, width = gradient.shape
        channels = padded.shape[-1]
        down, across = _tile_counts(height, width)
        gradient = gradient.permute(0, 2, 3, 1)
        below, right = OUTPUT_SIDE * down - height, OUTPUT_SIDE * across - width
        by_tile = pad(gradient, (0, 0, 0, right, 0, below)).reshape(
            n, down, OUTPUT_SIDE, across, OUTPUT_SIDE, -1
        )
        # A tile reaches 2 beyond its own 4 x 4, so that the sums need one tile more at the lower and right end.
        feature_gradient = padded.new_zeros(n, down + 1, OUTPUT_SIDE, across + 1, OUTPUT_SIDE, channels)
        weights_gradient = torch.zeros_like(weights)
        for chunk in _chunks(n, down * across):
            tiles = by_tile[chunk].permute(2, 4, 0, 1, 3, 5).reshape(OUTPUT_SIDE**2, -1)
            products = (OUTPUT_TRANSFORM.T @ tiles).view(INPUT_SIDE**2, -1, weights.shape[-1])
            weights_gradient.baddbmm_(_transform_input(padded[chunk]).transpose(1, 2), products)
            inputs = torch.bmm(products, weights.transpose(1, 2))
            tiles = (INPUT_TRANSFORM.T @ inputs.flatten(1)).view(
                INPUT_SIDE, INPUT_SIDE, -1, down, across, channels
            )
            _add_overlapping(tiles.permute(2, 3, 0, 4, 1, 5), to=feature_gradient[chunk])
        whole = feature_gradient.view(n, OUTPUT_SIDE * (down + 1), OUTPUT_SIDE * (across + 1), channels)
        weight_gradient = (WEIGHT_TRANSFORM.T @ weights_gradient.flatten(1)).view(3, 3, channels, -1)
        return (
            whole[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2),
            weight_gradient.permute(3, 2, 0, 1),
            gradient.sum(dim=(0, 1, 2)),
        )


def _tile_counts(height: int, width: int) -> tuple[int, int]:
    return -(-height // OUTPUT_SIDE), -(-width // OUTPUT_SIDE)


def _chunks(n_images: int, tiles_an_image: int) -> list[slice]:
    """Slices of a batch with about CHUNK_TILES tiles each, one image at least."""
    step = max(1, CHUNK_TILES // tiles_an_image)
    return [slice(start, start + step) for start in range(0, n_images, step)]


def _transform_weight(weight: Tensor) -> Tensor:
    """[D, C, 3, 3] to [36, C, D]."""
    out_channels, in_channels = weight.shape[:2]
    columns = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (WEIGHT_TRANSFORM @ columns).view(INPUT_SIDE**2, in_channels, out_channels)


def _transform_input(padded: Tensor) -> Tensor:
    """[B, 4 * down + 2, 4 * across + 2, C] to [36, B * down * across, C]."""
    tiles = padded.unfold(1, INPUT_SIDE, OUTPUT_SIDE).unfold(2, INPUT_SIDE, OUTPUT_SIDE)
    columns = tiles.permute(4, 5, 0, 1, 2, 3).reshape(INPUT_SIDE**2, -1)
    return (INPUT_TRANSFORM @ columns).view(INPUT_SIDE**2, -1, padded.shape[-1])


def _add_overlapping(tiles: Tensor, *, to: Tensor) -> None:
    """Sum 6 x 6 tiles that lie 4 apart: [B, down, 6, across, 6, C] into [B, down + 1, 4, across + 1, 4, C]."""
    own, beyond = slice(None, OUTPUT_SIDE), slice(OUTPUT_SIDE, None)
    overlap = slice(None, INPUT_SIDE - OUTPUT_SIDE)
    this, following = slice(None, -1), slice(1, None)
    to[:, this, :, this] += tiles[:, :, own, :, own]
    to[:, following, overlap, this] += tiles[:, :, beyond, :, own]
    to[:, this, :, following, overlap] += tiles[:, :, own, :, beyond]
    to[:, following, overlap, following, overlap] += tiles[:, :, beyond, :, beyond]
