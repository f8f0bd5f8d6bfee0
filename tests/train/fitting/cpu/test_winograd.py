"""The fast convolution is PyTorch's convolution: values and gradients, for every size of image and tile."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from train.config import fit_config
from train.fitting.cpu.winograd import WINOGRAD_CHANNELS, winograd_conv3x3, winograd_convolutions
from train.fitting.preparation import fast_training
from train.method.backbones import Backbone
from train.method.student import GenerationBlock, Student


def relative_error(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


# Sides that are and are not a multiple of the tile's 4, smaller than a tile, more images than a chunk holds.
@pytest.mark.parametrize(
    ("batch", "in_channels", "out_channels", "height", "width"),
    [(2, 5, 7, 8, 8), (3, 4, 6, 7, 13), (1, 3, 2, 1, 2), (2, 8, 8, 64, 68), (40, 3, 4, 12, 12)],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_pytorch(
    batch: int,
    in_channels: int,
    out_channels: int,
    height: int,
    width: int,
    memory_format: torch.memory_format,
) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    feature = drawn(batch, in_channels, height, width).to(memory_format=memory_format)
    weight, bias = drawn(out_channels, in_channels, 3, 3), drawn(out_channels)
    upstream = drawn(batch, out_channels, height, width).to(memory_format=memory_format)

    def run(fast: bool) -> tuple[Tensor, ...]:
        dtype = torch.float32 if fast else torch.float64
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (feature, weight, bias)]
        result = winograd_conv3x3(*leaves) if fast else conv2d(*leaves, padding=1)
        return result.detach(), *torch.autograd.grad(result, leaves, upstream.to(dtype))

    fast, expected = run(fast=True), run(fast=False)
    assert [tensor.shape for tensor in fast] == [tensor.shape for tensor in expected]
    assert max(relative_error(*pair) for pair in zip(fast, expected, strict=True)) < 3e-5
    assert fast[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "differs"), [(WINOGRAD_CHANNELS, True), (WINOGRAD_CHANNELS - 1, False)])
def test_a_wide_block_convolves_fast_while_it_trains_and_exactly_otherwise(
    channels: int, differs: bool
) -> None:
    block = GenerationBlock(student_channels=channels, teacher_channels=channels).requires_grad_(False)
    feature = torch.rand(2, channels, 9, 9, generator=torch.Generator().manual_seed(1))
    exact = block.train()(feature)
    with winograd_convolutions(block) as n_wide:
        assert n_wide == (2 if differs else 0)
        fast = block(feature)
        assert torch.equal(block.eval()(feature), exact)
    assert torch.equal(fast, exact) != differs
    torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-5)


def test_afterwards_the_blocks_are_as_before_after_a_fault_too() -> None:
    block = GenerationBlock(student_channels=WINOGRAD_CHANNELS, teacher_channels=WINOGRAD_CHANNELS)
    tensor_names, own = list(block.state_dict()), [dict(layer.__dict__) for layer in block.modules()]
    with contextlib.suppress(KeyboardInterrupt), winograd_convolutions(block):
        assert list(block.state_dict()) == tensor_names
        raise KeyboardInterrupt
    assert [dict(layer.__dict__) for layer in block.modules()] == own


@pytest.mark.parametrize(
    ("options", "device", "fast"),
    [
        ({}, "cpu", True),
        ({"mixed_precision": "off"}, "meta", False),
        ({"mixed_precision": "bfloat16"}, "cpu", False),
        ({"compile": True}, "cpu", False),
    ],
)
def test_fast_where_pytorch_has_nothing_faster(options: dict[str, object], device: str, fast: bool) -> None:
    """Stages with a block are swapped for the time of the training, those without have nothing to swap."""
    backbone = Backbone("test_resnet", mean=(0.5,) * 3, std=(0.5,) * 3)
    channels = (backbone.channels[0], WINOGRAD_CHANNELS, WINOGRAD_CHANNELS)
    student = Student(backbone=backbone, teacher_channels=channels, generation_stages=(2, 3))
    config = fit_config("edge", {"freeze_batchnorm": False, **options})
    with fast_training(student, config=config, device=torch.device(device)):
        swapped = [name for name, layer in student.named_modules() if "forward" in layer.__dict__]
    # Not the first of stage 2: the backbone's own channels are fewer there.
    wide = ["generation_blocks.1.second", "generation_blocks.2.first", "generation_blocks.2.second"]
    assert swapped == (wide if fast else [])
    assert not any("forward" in layer.__dict__ for layer in student.modules())
