"""The images that benchmarks send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.images import find_images, load_image
from model_repository.image_decoder.image_decoding import resize_image

N_IMAGES = 16
Pixels = NDArray[np.uint8]


def load_pixels(folder: Path, size: int) -> Pixels:
    """Some images [N, S, S, 3] uint8, spread over a folder."""
    files = find_images([folder])
    chosen = {len(files) * index // N_IMAGES for index in range(N_IMAGES)}
    return np.stack([resize_image(load_image(files[index].path), size) for index in sorted(chosen)])
