"""Ground truth masks of the test set, read and checked against their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_repository.image_decoder.image_decoding import ImageError, read_image
from train.data.category import TestImage, upright_size
from train.errors import DataError


def load_masks(test: Sequence[TestImage], *, image_size: int) -> NDArray[np.bool_] | None:
    """Ground truth masks [N, S, S] for test images, or None where not one of them has a mask.

    A mask is resized with the nearest neighbour, so that it stays a mask. An image without one gets an empty one.

    Raises:
        DataError: a mask file that is no image, is of another size than its image, or marks a defect on a good one.
    """
    if all(image.mask_path is None for image in test):
        return None
    masks = np.zeros((len(test), image_size, image_size), bool)
    for index, image in enumerate(test):
        if image.mask_path is not None:
            masks[index] = _load_mask(image, image.mask_path, image_size)
    return masks


def _load_mask(image: TestImage, mask_path: Path, image_size: int) -> NDArray[np.bool_]:
    try:
        mask = read_image(mask_path, bit_depth=16).convert("L")
    except ImageError as error:
        raise DataError(f"Ground truth mask {error}.") from None
    (width, height), (expected_width, expected_height) = mask.size, upright_size(image.path, decode=True)
    if (width, height) != (expected_width, expected_height):
        raise DataError(
            f"Ground truth mask {mask_path} is {width} x {height} pixels, its image {image.path} "
            f"{expected_width} x {expected_height}; expected equal sizes; draw the mask over the image itself."
        )
    if not image.anomalous and mask.getextrema() != (0, 0):
        raise DataError(
            f"Ground truth mask {mask_path} marks a defect on an image in test/good; expected a black mask or none; "
            "move the image to the folder of its defect kind, or remove the mask."
        )
    return np.asarray(mask.resize((image_size, image_size), Image.Resampling.NEAREST)) > 0
