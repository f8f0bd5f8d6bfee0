"""A category's pictures and masks, each shifted and turned as a worker lays parts down: the edge is repeated."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.category import CategoryData, read_category


def motion(seed: int, side: int, *, turn: float = 30.0, shift: float = 0.15) -> NDArray[np.float64]:
    """[2, 3]: a turn of up to so many degrees about the middle, and shifts of up to so much of the side."""
    generator = np.random.default_rng(seed)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), generator.uniform(-turn, turn), 1.0)
    matrix[:, 2] += generator.uniform(-shift, shift, 2) * side
    return np.asarray(matrix)


def moved(
    picture: NDArray[np.uint8], matrix: NDArray[np.float64], *, mask: bool = False
) -> NDArray[np.uint8]:
    size = picture.shape[1], picture.shape[0]
    if mask:
        return np.asarray(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_NEAREST))
    return np.asarray(
        cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )


def move_category(data: CategoryData, root: Path) -> CategoryData:
    """The same category in another folder, a motion for each picture and its mask."""
    for number, path in enumerate(sorted(data.root.rglob("*.png"))):
        is_mask = path.stem.endswith("_mask")
        if is_mask:
            continue
        place = root / path.relative_to(data.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        picture = np.asarray(Image.open(path).convert("RGB"))
        matrix = motion(number, picture.shape[0])
        Image.fromarray(moved(picture, matrix)).save(place)
        mask = data.root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if path.parent.parent.name == "test" and mask.exists():
            own = root / mask.relative_to(data.root)
            own.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(moved(np.asarray(Image.open(mask).convert("L")), matrix, mask=True)).save(own)
    return read_category(root, dataset="folder", category=data.category)
