"""Teacher and student backbones: timm CNNs cut after stage 3 (Section 3.1)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from train.errors import ConfigError, WeightsError
from train.method.pretrained_weights import LoadedWeights, require_known_backbone

STAGES = (1, 2, 3)  # those that are compared; the last stage is discarded
STRIDES = [4, 8, 16]  # pixels from one position of a stage's features to the next
BLUR = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16  # 3x3, binomial


class Backbone(nn.Module):
    """A timm CNN cut after stage 3, normalisation inside.

    Takes plain RGB bytes, [B, H, W, 3] uint8, and gives three feature maps [B, C_n, H / s_n, W / s_n]
    float32 with strides s = 4, 8 and 16.

    Args:
        name: timm's.
        mean, std: of each colour, on the scale 0..1.
        can_sharpen: whether the image passes a 3x3 filter, which changes nothing before `sharpen` is called.
    """

    def __init__(
        self, name: str, *, mean: tuple[float, ...], std: tuple[float, ...], can_sharpen: bool = False
    ) -> None:
        super().__init__()
        self.body = _create_body(name)
        # On the scale of bytes. As buffers they are saved with the weights and count in the release id.
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        self.sharpening: nn.Conv2d | None = None  # one filter a colour
        if can_sharpen:
            self.sharpening = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate", groups=3, bias=False)
            self.sharpen(0.0)

    @property
    def channels(self) -> list[int]:
        """Channels of the three feature maps."""
        return list(self.body.feature_info.channels())

    @torch.no_grad()
    def sharpen(self, strength: float) -> None:
        """Add `strength` times what a slight blur takes from an image to that image, from now on; 0 adds nothing.

        Networks learn from pictures that are sharper than a camera's, made small.
        """
        assert self.sharpening is not None
        unchanged = torch.zeros(3, 3)
        unchanged[1, 1] = 1
        kernel = unchanged + strength * (unchanged - BLUR)
        self.sharpening.weight.copy_(kernel.expand_as(self.sharpening.weight))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features at stages 1 to 3 of `image` [B, H, W, 3] uint8."""
        pixels = image.float().permute(0, 3, 1, 2)  # [B, 3, H, W]; cast first, TensorRT permutes no UINT8
        normalized = (pixels - self.mean) / self.std
        if self.sharpening is not None:
            normalized = self.sharpening(normalized)
        features: list[Tensor] = self.body(normalized)
        return features


def build_backbone(name: str, weights: LoadedWeights, *, can_sharpen: bool = False) -> Backbone:
    """A backbone with its weights loaded; every one of its parameters must be among them.

    For `can_sharpen` see `Backbone`.

    Raises:
        WeightsError: the weights are another network's.
        ConfigError: timm does not know the name, or it has no features of stride 4, 8 and 16.
    """
    backbone = Backbone(name, mean=weights.mean, std=weights.std, can_sharpen=can_sharpen)
    try:
        # Not strict: the weights also have the layers after stage 3.
        missing = backbone.body.model.load_state_dict(weights.state, strict=False).missing_keys
    except RuntimeError as error:
        raise WeightsError(
            f"{weights.source} does not fit {name}: {str(error).splitlines()[-1].strip()}"
        ) from None
    if missing:
        raise WeightsError(
            f"{weights.source} lacks {len(missing)} tensors of {name}, {missing[0]} among them; give its own weights."
        )
    return backbone


def _create_body(name: str) -> Any:
    """timm's network up to stage 3, later layers pruned away, giving the features of strides 4, 8 and 16."""
    require_known_backbone(name)
    reductions = [info["reduction"] for info in timm.create_model(name).feature_info]
    if not set(STRIDES) <= set(reductions):
        raise ConfigError(
            f"Backbone {name} has features of strides {reductions}; expected {STRIDES} among them."
        )
    # The deepest feature map of each stride.
    last_of_stride = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)
    try:
        return timm.create_model(name, features_only=True, feature_cls="getter", out_indices=last_of_stride)
    except (AttributeError, AssertionError) as error:
        raise ConfigError(
            f"Backbone {name} does not give its intermediate features ({error}); choose another CNN."
        ) from None
