"""The smallest SAM there is: random weights, 64 px, two layers; its masks mean nothing, but follow the image."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import SamConfig, SamModel

from train.calibration.sam import SAM_FOLDER

SEED = 5  # of masks that cover about half of a picture; many others cover all of it


def save_tiny_sam(weights_dir: Path, *, seed: int = SEED) -> Path:
    """Write `weights_dir`/sam-vit-base as transformers writes it, and return that folder."""
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_pos_feats": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 3,  # of 8: the last window is padded, as SAM's is
            "global_attn_indexes": [1],
            "mlp_dim": 32,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    torch.manual_seed(seed)
    sam = SamModel(config)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.normal_(std=0.5)  # as initialised, the image hardly counts
    folder = weights_dir / SAM_FOLDER
    sam.save_pretrained(folder)
    return folder
