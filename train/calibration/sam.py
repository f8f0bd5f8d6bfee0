"""The `sam` method of background removal: Segment Anything with one fixed prompt, as a module that is exported too."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_repository.foreground.foreground_mask import MARGIN_SHARE, SMALLEST_PART
from train.checkpoint.tensors import tensors_id
from train.errors import WeightsError

if TYPE_CHECKING:
    from transformers import SamModel

SAM_FOLDER = "sam-vit-base"  # in --weights-dir
SAM_FILES = ("config.json", "model.safetensors")
SAM_DOWNLOAD = "facebook/sam-vit-base"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what SAM was trained with

# The prompt, in shares of the side: the part is in the middle (label 1), the corners are background (label 0).
PROMPT_POINTS = ((0.5, 0.5), (0.02, 0.02), (0.98, 0.02), (0.02, 0.98), (0.98, 0.98))
PROMPT_LABELS = (1, 0, 0, 0, 0)


class SamForeground(nn.Module):
    """`image` [B, H, W, 3] uint8 to `foreground` [B, H, W] bool, True on the part.

    Of SAM's three masks for the prompt the one of the highest predicted IoU is taken, and widened by the margin
    of the `threshold` method; where it covers next to nothing, the whole picture counts as the part.

    Args:
        sam: the network; evaluated only.
        source: where its weights come from.
    """

    def __init__(self, *, sam: SamModel, source: str) -> None:
        super().__init__()
        self.source = source
        self.side: int = sam.config.vision_config.image_size
        self.encoder = sam.vision_encoder
        self.decoder = sam.mask_decoder
        # The prompt never changes, so what SAM makes of it is computed once.
        with torch.no_grad():
            points = torch.tensor(PROMPT_POINTS).mul(self.side)[None, None]
            labels = torch.tensor(PROMPT_LABELS)[None, None]
            sparse, dense = sam.get_prompt_embeddings(input_points=points, input_labels=labels)
            position = sam.get_image_wide_positional_embeddings()
        for name, value in (
            ("sparse_prompt", sparse),
            ("dense_prompt", dense.contiguous()),
            ("position", position),
            ("mean", torch.tensor(MEAN).view(1, 3, 1, 1)),
            ("std", torch.tensor(STD).view(1, 3, 1, 1)),
        ):
            self.register_buffer(name, value.detach().clone())
        self.sparse_prompt: Tensor
        self.dense_prompt: Tensor
        self.position: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.eval().requires_grad_(False)

    @property
    def id(self) -> int:
        """An id of its weights; a checkpoint calibrated with it stores the id, which so counts in the release id."""
        return tensors_id(self.state_dict())

    def forward(self, image: Tensor) -> Tensor:
        """The part's mask [B, H, W] bool."""
        batch, height, width = image.shape[:3]
        pixels = image.permute(0, 3, 1, 2).float() / 255
        pixels = F.interpolate(pixels, (self.side, self.side), mode="bilinear")
        embeddings = self.encoder((pixels - self.mean) / self.std)[0]
        masks, predicted_iou = self.decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.position.expand(batch, -1, -1, -1),
            sparse_prompt_embeddings=self.sparse_prompt.expand(batch, -1, -1, -1),
            dense_prompt_embeddings=self.dense_prompt,
            multimask_output=True,
        )  # [B, 1, 3, side / 4, side / 4], [B, 1, 3]
        best = F.one_hot(predicted_iou[:, 0].argmax(dim=1), masks.shape[2])  # [B, 3]
        logits = (masks[:, 0] * best[:, :, None, None]).sum(dim=1, keepdim=True)
        logits = F.interpolate(logits, (height, width), mode="bilinear")
        margin = min(height, width) // MARGIN_SHARE
        part = F.max_pool2d(logits, 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0  # [B, H, W]
        has_part = part.float().mean(dim=(1, 2), keepdim=True) >= SMALLEST_PART
        return part | ~has_part


def load_sam(weights_dir: Path | None) -> SamForeground:
    """SAM from `weights_dir`/sam-vit-base, else by transformers' download.

    Raises:
        WeightsError: transformers or the weights are missing, or the weights are not SAM's.
    """
    if importlib.util.find_spec("transformers") is None:
        raise WeightsError(
            "--foreground sam needs the package transformers, which is not installed; pip install '.[sam]', or use "
            "--foreground threshold."
        )
    folder = weights_dir / SAM_FOLDER if weights_dir is not None else None
    if folder is not None and folder.is_dir():
        return SamForeground(sam=_read(folder), source=str(folder))
    return SamForeground(sam=_download(folder), source=f"transformers' download of {SAM_DOWNLOAD}")


def _read(folder: Path) -> SamModel:
    for name in SAM_FILES:
        if not (folder / name).is_file():
            raise WeightsError(
                f"SAM in {folder} lacks {name}; put {' and '.join(SAM_FILES)} of {SAM_DOWNLOAD} there."
            )
    try:
        return _from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises a dozen types for damaged files
        raise WeightsError(
            f"SAM in {folder} cannot be used ({_first_line(error)}); expected {' and '.join(SAM_FILES)} of "
            f"{SAM_DOWNLOAD}."
        ) from None


def _download(folder: Path | None) -> SamModel:
    from huggingface_hub import constants

    from train.method.pretrained_weights import require_reachable

    looked = f"{folder} does not exist" if folder is not None else "no --weights-dir given"
    try:
        with suppress(OSError):  # transformers' word for what was not downloaded earlier
            return _from_pretrained(SAM_DOWNLOAD, local_files_only=True)
        require_reachable(constants.ENDPOINT)
        return _from_pretrained(SAM_DOWNLOAD, local_files_only=False)
    except Exception as error:  # the network's faults come in many libraries' types
        raise WeightsError(
            f"SAM's weights were not found ({looked}; download failed: {type(error).__name__}); three ways: put "
            f"{' and '.join(SAM_FILES)} of {SAM_DOWNLOAD} into a folder {SAM_FOLDER} in --weights-dir; or run "
            "where transformers can download them; or use --foreground threshold."
        ) from None


def _from_pretrained(name: str, *, local_files_only: bool) -> Any:
    """Load SAM whole: transformers would fill tensors that the files lack with random values, so they are refused."""
    from transformers import SamModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    sam, loading = SamModel.from_pretrained(
        name,
        local_files_only=local_files_only,
        use_safetensors=True,  # never a pickle, which is a program
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} among them")
    return sam


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
