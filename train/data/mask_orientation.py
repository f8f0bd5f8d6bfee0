"""How ground truth masks lie over images that EXIF turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from model_repository.image_decoder.deep_pixels import TURNS
from model_repository.image_decoder.image_decoding import ImageError
from train.data.category import SIDEWAYS, stored_size
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
