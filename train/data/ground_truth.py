"""Ground truth masks of the test set, read and checked against their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_repository.image_decoder.deep_pixels import TURNS
from model_repository.image_decoder.image_decoding import ImageError, read_image
from train.data.category import SIDEWAYS, TestImage, stored_size
from train.errors import DataError
from train.support.progress import console


@dataclass
class Orientations:
    """How masks lie over images that EXIF turns: over the stored pixels or over the upright ones.

    Attributes:
        turned: masks that were drawn over the stored pixels.
        unknown: masks whose size fits both ways.
    """

    turned: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)

    def upright(self, mask: Image.Image, mask_path: Path, image_path: Path) -> Image.Image:
        """The mask over the upright image.

        Raises:
            DataError: the image cannot be read, or is of another size.
        """
        try:
            stored, orientation = stored_size(image_path, decode=True)
        except ImageError as error:
            raise DataError(f"{error}; its mask {mask_path} has no image.") from None
        expected = stored[::-1] if orientation in SIDEWAYS else stored
        if mask.size == expected:
            if mask.size == stored and orientation in TURNS:
                self.unknown.append(mask_path)
            return mask
        if mask.size == stored and orientation in TURNS:
            self.turned.append(mask_path)
            return mask.transpose(TURNS[orientation])
        raise DataError(
            f"Ground truth mask {mask_path} is {mask.width} x {mask.height} pixels, its image {image_path} "
            f"{expected[0]} x {expected[1]}; expected equal sizes; draw the mask over the image itself."
        )

    def tell(self) -> None:
        """Say which masks were turned, and of which nobody can know whether they should be."""
        if self.turned:
            console.print(
                f"Note: {len(self.turned)} ground truth masks, {self.turned[0].name} among them, lie over their images "
                "as these are stored; they are turned upright with them, as EXIF says.",
                style="yellow",
                markup=False,
            )
        if self.unknown:
            console.print(
                f"Warning: EXIF turns the images of {len(self.unknown)} ground truth masks, {self.unknown[0].name} "
                "among them, and the masks fit both ways; they are taken as drawn over the upright images; save the "
                "images upright to be sure.",
                style="yellow",
                markup=False,
            )


def load_masks(test: Sequence[TestImage], *, image_size: int) -> NDArray[np.bool_] | None:
    """Ground truth masks [N, S, S] for test images, or None where not one of them has a mask.

    A mask is resized with the nearest neighbour, so that it stays a mask. An image without one gets an empty one. A
    mask that was drawn on the stored pixels of an image that EXIF turns is turned with it, which is told.

    Raises:
        DataError: a mask file that is no image, is of another size than its image, or marks a defect on a good one.
    """
    if all(image.mask_path is None for image in test):
        return None
    masks = np.zeros((len(test), image_size, image_size), bool)
    orientations = Orientations()
    for index, image in enumerate(test):
        if image.mask_path is not None:
            masks[index] = _load_mask(image, image.mask_path, image_size, orientations)
    orientations.tell()
    return masks


def _load_mask(
    image: TestImage, mask_path: Path, image_size: int, orientations: Orientations
) -> NDArray[np.bool_]:
    try:
        mask = read_image(mask_path, bit_depth=16).convert("L")
    except ImageError as error:
        raise DataError(f"Ground truth mask {error}.") from None
    mask = orientations.upright(mask, mask_path, image.path)
    if not image.anomalous and mask.getextrema() != (0, 0):
        raise DataError(
            f"Ground truth mask {mask_path} marks a defect on an image in test/good; expected a black mask or none; "
            "move the image to the folder of its defect kind, or remove the mask."
        )
    return np.asarray(mask.resize((image_size, image_size), Image.Resampling.NEAREST)) > 0
