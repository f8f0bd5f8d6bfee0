"""Folding frozen BatchNorm into the convolutions changes neither features nor gradients nor the state dict."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.method.backbones import Backbone, build_backbone
from train.method.pretrained_weights import random_weights

SIZE = 64


def frozen_backbone(name: str) -> Backbone:
    """In training mode, its BatchNorm layers frozen and with statistics and parameters worth folding.

    In double precision: rounding moves an activation over ReLU's kink now and then, and its gradient jumps.
    """
    backbone = build_backbone(name, random_weights(name, seed=0)).train().double()
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.eval()
            with torch.no_grad():
                for tensor, low in (
                    (module.weight, 0.5),
                    (module.bias, -0.2),
                    (module.running_mean, -0.5),
                    (module.running_var, 0.5),
                ):
                    tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return backbone


def features_and_gradients(backbone: Backbone) -> tuple[list[Tensor], dict[str, Tensor]]:
    image = torch.randint(
        256, (2, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    backbone.zero_grad()
    features = backbone(image)
    torch.stack([feature.square().mean() for feature in features]).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    return [feature.detach() for feature in features], gradients


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "test_resnet", "mobilenetv3_small_050", "resnetv2_50"]
)
def test_same_features_gradients_and_names(name: str) -> None:
    backbone = frozen_backbone(name)
    features, gradients = features_and_gradients(backbone)
    keys = list(backbone.state_dict())
    with folded_batchnorm(backbone, image_size=SIZE) as n_pairs:
        assert n_pairs > 0
        assert list(backbone.state_dict()) == keys
        folded_features, folded_gradients = features_and_gradients(backbone)
    for ours, theirs in zip(folded_features, features, strict=True):
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))
    assert folded_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(folded_gradients[key], gradient, rtol=1e-6, atol=1e-9)
    assert torch.equal(features_and_gradients(backbone)[0][0], features[0])


def test_evaluation_within_it_is_as_ever() -> None:
    backbone = frozen_backbone("tf_efficientnet_lite0")
    image = torch.full((1, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    with torch.no_grad():
        expected = backbone.eval()(image)
        backbone.train()
        for module in backbone.modules():
            module.train(not isinstance(module, nn.BatchNorm2d))
        with folded_batchnorm(backbone, image_size=SIZE):
            backbone.eval()
            features = backbone(image)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(features, expected, strict=True))


def test_layers_that_learn_statistics_are_let_alone() -> None:
    backbone = frozen_backbone("test_resnet").train()
    with folded_batchnorm(backbone, image_size=SIZE) as n_pairs:
        assert n_pairs == 0


class Forked(nn.Module):
    """A convolution whose result goes to BatchNorm and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
        nn.init.constant_(self.norm.weight, 2.0)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        result = self.convolution(pixels)
        return [self.norm(result) + result]


def test_a_convolution_that_others_read_too_is_let_alone() -> None:
    backbone = frozen_backbone("test_resnet")
    backbone.body = Forked().double()
    image = torch.full((1, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    expected = backbone(image)[0].detach()
    with folded_batchnorm(backbone, image_size=SIZE) as n_pairs:
        assert n_pairs == 0
        assert torch.equal(backbone(image)[0], expected)
