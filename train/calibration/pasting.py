"""Good images with a patch of another good image pasted in: stand-ins for defects, to weigh the stages by.

The idea is CutPaste's (Li et al. 2021, reference 40 of the paper), which trains on such images. Here nothing is
trained on them: they show which stage's distance maps rise at a defect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COPIES = 4  # pasted images for each good one: alternately a patch and a scar
PATCH_AREA, PATCH_ASPECT = (0.01, 0.12), (0.3, 3.3)  # share of the image; height over width
SCAR_AREA, SCAR_ASPECT = (0.003, 0.02), (4.5, 20.0)  # lying or standing
MIN_SIDE = 2  # pixels


def paste_patches(
    images: NDArray[np.uint8], *, seed: int, within: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Paste a rectangle of some good image into each good image, `COPIES` times.

    From [N, H, W, 3] to [COPIES * N, H, W, 3] uint8; the seed decides sizes, places and sources. Rectangles are as
    large as in pictures of the height and width `within`, in pixels; unless given, of the images'.
    """
    generator = np.random.default_rng(seed)
    pasted = np.concatenate([images] * COPIES)
    rows, columns = images.shape[1:3]
    for index, image in enumerate(pasted):
        scar = (index // len(images)) % 2 == 1
        height, width = _rectangle(within or (rows, columns), scar=scar, generator=generator)
        source = images[generator.integers(len(images))]
        from_row, to_row = generator.integers(0, rows - height + 1, 2)
        from_column, to_column = generator.integers(0, columns - width + 1, 2)
        patch = source[from_row : from_row + height, from_column : from_column + width]
        image[to_row : to_row + height, to_column : to_column + width] = patch
    return pasted


def _rectangle(shape: tuple[int, int], *, scar: bool, generator: np.random.Generator) -> tuple[int, int]:
    """Height and width in pixels: a patch of any proportion, or a scar, thin and long."""
    (smallest, largest), aspects = (SCAR_AREA, SCAR_ASPECT) if scar else (PATCH_AREA, PATCH_ASPECT)
    area = generator.uniform(smallest, largest) * (shape[0] * shape[1])
    aspect = np.exp(generator.uniform(*np.log(aspects)))
    if scar and generator.random() < 0.5:
        aspect = 1 / aspect
    sides = np.sqrt([area * aspect, area / aspect]).round().clip(MIN_SIDE, shape)
    return int(sides[0]), int(sides[1])
