"""What a backbone gives, and which networks cannot be one."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import correlate1d

from train.errors import ConfigError
from train.method.backbones import build_backbone
from train.method.pretrained_weights import random_weights

NAME = "test_resnet"
IMAGE = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [NAME, "test_efficientnet", "test_convnext"])
def test_features_have_strides_4_8_16_and_the_channels_told(name: str) -> None:
    backbone = build_backbone(name, random_weights(name, seed=0)).eval()
    features = backbone(IMAGE)
    for feature, stride, channels in zip(features, (4, 8, 16), backbone.channels, strict=True):
        assert feature.shape == (2, channels, 64 // stride, 96 // stride)
        assert feature.dtype == torch.float32


def test_normalisation_inside_equals_normalisation_outside() -> None:
    weights = random_weights("test_efficientnet", seed=0)
    backbone = build_backbone("test_efficientnet", weights).eval()
    scaled = IMAGE.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (weights.mean, weights.std))
    for inside, outside in zip(backbone(IMAGE), backbone.body((scaled - mean) / std), strict=True):
        torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-4)


def sharpened(pixels: torch.Tensor, strength: float) -> torch.Tensor:
    """By SciPy: the image plus its difference from a binomial blur."""
    blurred = pixels.numpy()
    for axis in (1, 2):
        blurred = correlate1d(blurred, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    return pixels + strength * (pixels - torch.from_numpy(blurred))


def test_sharpening_adds_what_a_blur_takes_away() -> None:
    weights = random_weights(NAME, seed=0)
    backbone = build_backbone(NAME, weights, can_sharpen=True).eval()
    plain = build_backbone(NAME, weights).eval()
    for ours, theirs in zip(backbone(IMAGE), plain(IMAGE), strict=True):
        assert torch.equal(ours, theirs)  # nothing before it is asked for
    backbone.sharpen(1.5)
    pixels = sharpened(IMAGE.float(), 1.5).permute(0, 3, 1, 2)
    expected = plain.body((pixels - plain.mean) / plain.std)
    for ours, theirs in zip(backbone(IMAGE), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    backbone.sharpen(0)
    for ours, theirs in zip(backbone(IMAGE), plain(IMAGE), strict=True):
        assert torch.equal(ours, theirs)


def test_layers_after_stage_3_are_pruned_away() -> None:
    backbone = build_backbone(NAME, random_weights(NAME, seed=0))
    state = backbone.state_dict()
    assert any("layer3" in name for name in state)
    assert not any("layer4" in name or "fc." in name for name in state)


def test_a_vision_transformer_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"has features of strides \[16, .*expected \[4, 8, 16\] among them"
    ):
        build_backbone("test_vit", random_weights("test_vit", seed=0))
