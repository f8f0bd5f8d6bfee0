"""How far the networks look, by their layers: the margin with which large pictures are judged in strips.

`export.graphs.receptive_field` finds the same in the ONNX graphs; here it is never less, and needs no graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from model_repository.picture_strips import STEP
from train.errors import ConfigError
from train.method.backbones import STRIDES, Backbone

if TYPE_CHECKING:
    from train.method.student import Student

TRIED_SIDE = 64  # pixels of the picture that tells the layers' strides
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def chain_margin(teacher: Backbone, student: Student) -> int:
    """Pixels beside a strip from which both networks and the distances must be computed too; a multiple of 32.

    Both networks are in evaluation mode.
    """
    farthest = max(_reach(teacher), _reach(student))
    if student.residuals is not None:
        sides = (stage.neighbourhood for stage in student.residuals)
        farthest += max(side // 2 * stride for side, stride in zip(sides, STRIDES, strict=True))
    return -(-farthest // STEP) * STEP


def require_local(name: str, network: Backbone) -> None:
    """Make sure that what a network sees at a place does not depend on what is far from it.

    Squeeze-and-excitation, say, weighs channels by the mean of the whole picture: crops would show another picture.

    Raises:
        ConfigError: it depends.
    """
    width = 2 * _reach(network) // STEP * STEP + 2 * STEP
    pictures = torch.full(
        (2, STEP, width, 3), 128, dtype=torch.uint8, device=next(network.parameters()).device
    )
    pictures[1, :, -STEP:] = 0
    training = network.training
    with torch.inference_mode():
        features = network.eval()(pictures)
    network.train(training)
    if any(not torch.equal(stage[0, ..., 0], stage[1, ..., 0]) for stage in features):
        raise ConfigError(
            f"{name} looks at whole pictures (squeeze-and-excitation, say), so that crops tell it something else; "
            "expected a network of convolutions for --image-size native, such as those of the preset edge."
        )


def _reach(network: nn.Module) -> int:
    """Pixels: of each convolution and pool half its window, times the pixels between two of its positions."""
    reached = [0]

    def add(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        kernel, dilation = (_largest(getattr(layer, name, 1)) for name in ("kernel_size", "dilation"))
        reached[0] += (kernel - 1) * dilation // 2 * (TRIED_SIDE // min(TRIED_SIDE, inputs[0].shape[-1]))

    hooks = [
        layer.register_forward_pre_hook(add) for layer in network.modules() if isinstance(layer, WINDOWS)
    ]
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network(torch.zeros(1, TRIED_SIDE, TRIED_SIDE, 3, dtype=torch.uint8, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return reached[0]


def _largest(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else max(value)
