"""A category whose background tells, runs on it, and a tiny SAM."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_repository.foreground.foreground_mask import foreground_mask
from tests.conftest import CATEGORY, FitTiny
from tests.tiny_sam import save_tiny_sam
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData, read_category


@pytest.fixture(scope="session")
def blotted(tiny_data: CategoryData, tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    """The category with a black blot on the background of one good test image."""
    root = tmp_path_factory.mktemp("blotted") / CATEGORY
    shutil.copytree(tiny_data.root, root)
    path = root / "test" / "good" / "000.png"
    image = np.asarray(Image.open(path)).copy()
    assert not foreground_mask(image[None])[0, :8, :8].any()
    image[1:5, 1:5] = 0
    Image.fromarray(image).save(path)
    return read_category(root, dataset="folder", category=CATEGORY)


@pytest.fixture(scope="session")
def masked_runs(blotted: CategoryData, fit_tiny: FitTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained with `--foreground threshold`."""
    runs = tmp_path_factory.mktemp("masked_runs")
    fit_tiny(blotted, runs / CATEGORY, foreground="threshold")
    return runs


@pytest.fixture(scope="session")
def masked(masked_runs: Path) -> Checkpoint:
    return load_checkpoint(masked_runs / CATEGORY / "checkpoint.safetensors")


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a tiny SAM."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny_sam(folder)
    return folder
