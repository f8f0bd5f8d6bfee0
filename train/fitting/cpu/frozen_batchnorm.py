"""Training through frozen BatchNorm without its passes over the features.

With frozen statistics BatchNorm scales and shifts each channel, and the convolution before it can do both:

    gamma * (conv(x; w) - mean) / sigma + beta  =  conv(x; w * gamma / sigma, beta - mean * gamma / sigma)

The gradients of w, gamma and beta flow through the small products on the right. The large feature maps are read
and written once less in each direction. Parameters and their names do not change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.func import functional_call

from model_repository.image_size import ImageSize, height_width
from train.method.backbones import Backbone

# Relative to a feature map's maximum. More means that a convolution's result is used elsewhere too, and nothing is
# folded.
LARGEST_ERROR = 1e-3

Pairs = list[tuple[nn.Conv2d, nn.BatchNorm2d]]


@contextmanager
def folded_batchnorm(backbone: Backbone, *, image_size: ImageSize) -> Iterator[int]:
    """Within it, convolutions in training mode do the work of the frozen BatchNorm that follows them.

    Args:
        backbone: its BatchNorm layers are in evaluation mode; changed within the context only.
        image_size: of the random image that is sent through to see which layer follows which convolution.

    Yields:
        How many pairs are folded; 0 where folding would change the backbone's features.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, *height_width(image_size), 3), generator=generator, dtype=torch.uint8)
    image = image.to(backbone.mean.device)
    pairs, expected = _watch(backbone, image)
    for convolution, norm in pairs:
        _fold(convolution, norm)
    try:
        with torch.no_grad():
            same = all(
                float((ours - theirs).abs().max()) <= LARGEST_ERROR * float(theirs.abs().max())
                for ours, theirs in zip(backbone(image), expected, strict=True)
            )
        if not same:
            _unfold(pairs)
        yield len(pairs) if same else 0
    finally:
        _unfold(pairs)


@torch.no_grad()
def _watch(backbone: Backbone, image: Tensor) -> tuple[Pairs, list[Tensor]]:
    """Pairs of a convolution and the frozen BatchNorm after it, seen in one pass, and the features of that pass."""
    pairs: Pairs = []
    last: list[tuple[nn.Conv2d, Tensor]] = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            last[:] = [(module, result)]
        elif last and inputs[0] is last[0][1] and not module.training:
            pairs.append((last[0][0], module))  # type: ignore[arg-type]

    watched = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) or _is_frozen_norm(m)]
    handles = [module.register_forward_hook(after) for module in watched]
    try:
        features = backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    return pairs, features


def _is_frozen_norm(module: nn.Module) -> bool:
    """Whether a layer is BatchNorm in evaluation mode with something to fold; timm's own also holds an activation."""
    known = type(module) in (nn.BatchNorm2d, BatchNormAct2d)
    return known and not module.training and module.weight is not None and module.running_var is not None


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give both modules another forward, which takes effect while the convolution is in training mode."""
    plain_convolution, plain_norm = copy.copy(convolution), copy.copy(norm)
    behind: Callable[[Tensor], Tensor] = nn.Identity()
    if isinstance(norm, BatchNormAct2d):
        behind = nn.Sequential(norm.drop, norm.act)

    def convolve(feature: Tensor) -> Tensor:
        if not convolution.training:
            return plain_convolution(feature)  # type: ignore[no-any-return]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        offset = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
        folded = {
            "weight": convolution.weight * scale.view(-1, 1, 1, 1),
            "bias": torch.addcmul(norm.bias, offset, scale),
        }
        result: Tensor = functional_call(plain_convolution, folded, (feature,))
        return result

    def normalise(feature: Tensor) -> Tensor:
        return behind(feature) if convolution.training else plain_norm(feature)

    convolution.__dict__["forward"], norm.__dict__["forward"] = convolve, normalise


def _unfold(pairs: Pairs) -> None:
    for pair in pairs:
        for module in pair:
            module.__dict__.pop("forward", None)
