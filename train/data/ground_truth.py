"""Ground truth masks of the test set, read and checked against their images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_repository.image_decoder.deep_pixels import TURNS
from model_repository.image_decoder.image_decoding import DeepPixels, ImageError, decode_pixels, naming
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import ImageSize, height_width
from train.data.category import TestImage
from train.data.file_sizes import SIDEWAYS, stored_size
from train.errors import DataError
from train.support.progress import console

MOST_LEVELS = 16  # besides 0; a mask drawn by hand or with a number for each defect has fewer
MOSTLY = 0.5  # of the picture; more, and its border, is a mask whose defect is black
BORDER_MOSTLY = 0.9  # of the outermost pixels
LOSSY_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Mask:
    """A mask as it is in its file.

    Attributes:
        marked: [H, W] bool, upright; True where the file holds anything but 0.
        n_levels: how many values besides 0 it holds.
        path: the file.
    """

    marked: NDArray[np.bool_]
    n_levels: int
    path: Path

    @property
    def in_between(self) -> bool:
        """Whether it holds greys that nobody drew, as JPEG and resizing leave them."""
        lossy = self.path.suffix.lower() in LOSSY_SUFFIXES and self.n_levels > 1
        return lossy or self.n_levels > MOST_LEVELS

    @property
    def inverted(self) -> bool:
        """Whether it looks as if the defect were black: it marks most of the picture, the border too."""
        border = np.concatenate(
            [self.marked[0], self.marked[-1], self.marked[1:-1, 0], self.marked[1:-1, -1]]
        )
        return bool(self.marked.mean() > MOSTLY and border.mean() > BORDER_MOSTLY)


@dataclass
class Orientations:
    """How masks lie over images that EXIF turns: over the stored pixels or over the upright ones.

    Attributes:
        turned: masks that were drawn over the stored pixels.
        unknown: masks whose size fits both ways.
    """

    turned: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)

    def upright(self, mask: Mask, image_path: Path) -> Mask:
        """The mask over the upright image.

        Raises:
            DataError: the image cannot be read, or is of another size.
        """
        try:
            stored, orientation = stored_size(image_path, decode=True)
        except ImageError as error:
            raise DataError(f"{error}; its mask {mask.path} has no image.") from None
        width, height = stored[::-1] if orientation in SIDEWAYS else stored
        if mask.marked.shape == (height, width):
            if stored == (width, height) and orientation in TURNS:
                self.unknown.append(mask.path)
            return mask
        if mask.marked.shape == stored[::-1] and orientation in TURNS:
            self.turned.append(mask.path)
            return replace(mask, marked=_turned(mask.marked, orientation))
        raise DataError(
            f"Ground truth mask {mask.path} is {mask.marked.shape[1]} x {mask.marked.shape[0]} pixels, its image "
            f"{image_path} {width} x {height}; expected equal sizes; draw the mask over the image itself."
        )

    def sentences(self, n_masks: int) -> list[str]:
        """Which masks were turned, and of which nobody can know whether they should be."""
        return [
            *_said_of(self.turned, n_masks, "lie over their images as these are stored",
                      "they are turned upright with them, as EXIF says"),
            *_said_of(self.unknown, n_masks, "fit both ways over images that EXIF turns",
                      "they are taken as drawn over the upright images; save the images upright to be sure"),
        ]  # fmt: skip


def load_masks(
    test: Sequence[TestImage], *, image_size: ImageSize, keep_aspect: bool = False, native: bool = False
) -> NDArray[np.bool_] | None:
    """Ground truth masks [N, H, W] for test images, or None where not one of them has a mask.

    Where pictures are `native`, which keep their own size, `image_size` is that at which they are judged.

    Whatever is not 0 marks a defect, whichever values a file has. A mask is resized with the nearest neighbour, so that
    it stays a mask; beside a shape that is kept nothing is marked. An image without one gets an empty one. A mask that
    was drawn over the stored pixels of an image that EXIF turns is turned with it. What is odd about masks is said, and
    they are taken as they are.

    Raises:
        DataError: a mask file that is no image, is of another size than its image, or marks a defect on a good one.
    """
    if all(image.mask_path is None for image in test):
        return None
    masks = np.zeros((len(test), *height_width(image_size)), bool)
    in_between, inverted, drawn, orientations = [], [], [], Orientations()
    for index, image in enumerate(test):
        if image.mask_path is None:
            continue
        mask = _load_mask(image, image.mask_path, orientations)
        masks[index] = (
            _filled(mask.marked, image_size)
            if native
            else _resize(mask.marked, image_size, keep_aspect=keep_aspect)
        )
        if mask.marked.any() and not mask.marked.all():
            drawn.append(image)
        if mask.in_between:
            in_between.append(mask.path)
        if mask.inverted:
            inverted.append(mask.path)
    n_masks = sum(image.mask_path is not None for image in test)
    for sentence in (
        *_said_of(in_between, n_masks, "hold greys between black and white, as JPEG and resizing leave them",
                  "all that is not 0 counts as defective; save masks as PNG with 0 and 255"),
        *_said_of(inverted, n_masks, "mark most of the picture and its border",
                  "all that is not 0 counts as defective; if the defect is black in them, invert them"),
        *orientations.sentences(n_masks),
        *_shared(drawn),
    ):  # fmt: skip
        console.print(sentence, style="yellow", markup=False)
    return masks


def _load_mask(image: TestImage, mask_path: Path, orientations: Orientations) -> Mask:
    mask = orientations.upright(read_mask(mask_path), image.path)
    if not image.anomalous and mask.marked.any():
        raise DataError(
            f"Ground truth mask {mask_path} marks a defect on an image in test/good; expected a black mask or none; "
            "move the image to the folder of its defect kind, or remove the mask."
        )
    return mask


def read_mask(path: Path) -> Mask:
    """Read a mask upright, its values as they stand in the file: no conversion may make a small one vanish."""
    try:
        with naming(path):
            image = decode_pixels(path.read_bytes(), any_density=True)
    except ImageError as error:
        raise DataError(f"Ground truth mask {error}; mend it, or remove it.") from None
    if isinstance(image, DeepPixels):
        channels = np.atleast_3d(image.values)  # [H, W, 1 or 3]
        values = (channels if image.alpha is None else np.where(image.alpha == 0, 0, channels)).max(axis=2)
    elif image.mode in ("L", "1") and "transparency" not in image.info:
        values = np.asarray(image)
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        values = np.where(rgba[..., 3] == 0, 0, rgba[..., :3].max(axis=2))  # the transparent is black
    else:
        values = np.asarray(image.convert("RGB")).max(axis=2)
    if not np.isfinite(values).all():
        raise DataError(
            f"Ground truth mask {path} has values that are not finite (NaN or infinite); expected 0 where all is good."
        )
    marked = values != 0
    n_levels = len(np.unique(values[marked]))
    if isinstance(image, DeepPixels):
        marked = _turned(marked, image.orientation)
    return Mask(marked=marked, n_levels=n_levels, path=path)


def _turned(marked: NDArray[np.bool_], orientation: int) -> NDArray[np.bool_]:
    """Stored pixels [H, W], upright."""
    turn = TURNS.get(orientation)
    return marked if turn is None else np.asarray(Image.fromarray(marked).transpose(turn), bool)


def _resize(marked: NDArray[np.bool_], size: ImageSize, *, keep_aspect: bool) -> NDArray[np.bool_]:
    mask = Image.fromarray(marked)
    height, width = height_width(size)
    rows, columns = fitted_part(mask.size, size) if keep_aspect else (slice(0, height), slice(0, width))
    resized = np.zeros((height, width), bool)
    shown = (columns.stop - columns.start, rows.stop - rows.start)
    resized[rows, columns] = np.asarray(mask.resize(shown, Image.Resampling.NEAREST), bool)
    return resized


def _filled(marked: NDArray[np.bool_], size: ImageSize) -> NDArray[np.bool_]:
    """A mask of a picture that keeps its size; where that is filled, nothing is marked."""
    filled = np.zeros(height_width(size), bool)
    filled[: marked.shape[0], : marked.shape[1]] = marked
    return filled


def _said_of(paths: Sequence[Path], n_masks: int, what: str, then: str) -> list[str]:
    """One sentence on the masks of which something is to be said."""
    if not paths:
        return []
    return [f"{len(paths)} of {n_masks} ground truth masks {what}, {paths[0]} among them: {then}."]


def _shared(test: Sequence[TestImage]) -> list[str]:
    """One sentence on images whose masks are one file, or copies of one."""
    images_of: dict[bytes, list[TestImage]] = defaultdict(list)
    for image in test:
        if image.mask_path is not None:
            images_of[hashlib.sha256(image.mask_path.read_bytes()).digest()].append(image)
    shared = [images for images in images_of.values() if len(images) > 1]
    if not shared:
        return []
    first, second = shared[0][:2]
    return [
        f"{sum(map(len, shared))} defective images share their ground truth mask with another, {first.path} and "
        f"{second.path} among them ({first.mask_path}): give each image a mask of its own defect."
    ]
