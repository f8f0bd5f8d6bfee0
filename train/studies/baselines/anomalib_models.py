"""PaDiM (Defard et al. 2021) and PatchCore (Roth et al. 2022) as anomalib has them, to compare with.

Fitting, distances and image scores are anomalib's code. Two of its parts are exchanged, so that nothing but the method
differs from ours: the network is the method's own teacher, and maps are smoothed as the configuration says.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_repository.distance_fusion.map_fusion import gaussian_matrix, pooling_matrix
from model_repository.image_size import height_width, stage_shape
from train.config import FitConfig
from train.errors import ConfigError, DataError
from train.method.backbones import STRIDES, Backbone
from train.support.arrays import FloatArray

METHODS = ("padim", "patchcore")
CORESET_RATIO = 0.01
N_NEIGHBOURS = 9
# Channels that PaDiM draws out of all stages' channels: its paper's numbers, 100 for a network that is not there.
N_CHANNELS = {"wide_resnet50_2": 550}
USUAL_N_CHANNELS = 100
BATCH_SIZE = 16


class TeacherStages(nn.Module):
    """The teacher in the place of anomalib's feature extractor: images [B, 3, H, W] of values 0 to 255 in.

    Args:
        teacher: frozen, in evaluation mode.
        layers: what anomalib calls the teacher's three stages.
    """

    def __init__(self, teacher: Backbone, *, layers: list[int]) -> None:
        super().__init__()
        self.teacher = teacher
        self.layers = layers

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """The features [B, C, h, w] of each layer."""
        return dict(zip(self.layers, self.teacher(image.permute(0, 2, 3, 1)), strict=True))


class Smoothing(nn.Module):
    """Gaussian blur and average pooling of maps [B, 1, H, W], as the served fusion smooths."""

    def __init__(self, config: FitConfig) -> None:
        super().__init__()
        for name, side in zip(("rows", "columns"), height_width(config.image_size), strict=True):
            matrix = pooling_matrix(side, config.pool_size) @ gaussian_matrix(side, config.smoothing_sigma)
            self.register_buffer(name, torch.from_numpy(matrix))
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        """The smoothed maps, of the same shape."""
        return self.rows @ maps @ self.columns.T


def anomalib_version() -> str:
    """The version of anomalib that is installed.

    Raises:
        ConfigError: none is.
    """
    if importlib.util.find_spec("anomalib") is None:
        raise ConfigError(
            "`train baselines` needs the package anomalib, which is not installed; "
            "pip install -c constraints.txt '.[baselines]'."
        )
    return importlib.metadata.version("anomalib")


def fit_anomalib(
    method: str,
    teacher: Backbone,
    images: NDArray[np.uint8],
    *,
    config: FitConfig,
    seed: int,
    device: torch.device,
    coreset_ratio: float = CORESET_RATIO,
) -> Any:
    """Fit one of `METHODS` on good images [N, H, W, 3] uint8; the seed decides all that it draws.

    PatchCore keeps the share `coreset_ratio` of the patches.

    Returns:
        anomalib's model, on the device, in evaluation mode.

    Raises:
        DataError: too few images for a coreset.
    """
    rows, columns = stage_shape(config.image_size, STRIDES[1])
    n_patches = len(images) * rows * columns
    if method == "patchcore" and n_patches * coreset_ratio < 1:
        raise DataError(
            f"PatchCore keeps 1 in {1 / coreset_ratio:.0f} of {n_patches} patches of {len(images)} good images, "
            "which is none; give more images or a larger --image-size."
        )
    with _seeded(seed), _quiet(), torch.inference_mode():
        model = _patchcore(teacher, config) if method == "patchcore" else _padim(teacher, config)
        model.anomaly_map_generator.blur = Smoothing(config)
        model.to(device).train()
        model.feature_extractor.eval()
        for batch in _batches(images, device):
            model(batch)
        if method == "patchcore":
            model.subsample_embedding(coreset_ratio)
        else:
            model.fit()
    return model.eval()


def judge_with_anomalib(
    model: Any, images: NDArray[np.uint8], *, device: torch.device
) -> tuple[FloatArray, FloatArray]:
    """Anomaly maps [N, H, W] and image scores [N] of images [N, H, W, 3] uint8, both float32."""
    maps, scores = [], []
    with torch.inference_mode():
        for batch in _batches(images, device):
            judged = model(batch)
            maps.append(judged.anomaly_map[:, 0].cpu().numpy())
            scores.append(judged.pred_score.reshape(-1).cpu().numpy())
    return np.concatenate(maps), np.concatenate(scores)


def _patchcore(teacher: Backbone, config: FitConfig) -> Any:
    """PatchCore on stages 2 and 3."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    layers = _layers(teacher)
    model = PatchcoreModel(
        layers=layers[1:], backbone=config.teacher, pre_trained=False, num_neighbors=N_NEIGHBOURS
    )
    model.feature_extractor = TeacherStages(teacher, layers=layers)
    return model


def _padim(teacher: Backbone, config: FitConfig) -> Any:
    """PaDiM on all three stages."""
    from anomalib.models.image.padim.torch_model import PadimModel

    layers = _layers(teacher)
    n_channels = N_CHANNELS.get(config.teacher, USUAL_N_CHANNELS)
    model = PadimModel(
        layers=layers,
        backbone=config.teacher,
        pre_trained=False,
        n_features=min(n_channels, sum(teacher.channels)),
    )
    model.feature_extractor = TeacherStages(teacher, layers=layers)
    return model


def _layers(teacher: Backbone) -> list[int]:
    """timm's numbers of the teacher's three stages."""
    return [int(index) for index in teacher.body.feature_info.out_indices]


def _batches(images: NDArray[np.uint8], device: torch.device) -> Iterator[Tensor]:
    """[B, 3, H, W] float32, values 0 to 255."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = torch.from_numpy(images[start : start + BATCH_SIZE]).to(device)
        yield batch.permute(0, 3, 1, 2).float()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """anomalib draws from the global generators of torch and numpy: seeded within it, as they were after it."""
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without anomalib's warnings about its own code, and without its bar of the coreset where nobody watches.

    Its import sets variables of the environment, LD_LIBRARY_PATH among them, which no process started later may see.
    """
    before = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(_restore_environment, before)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(io.StringIO()))
        yield


def _restore_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)
