"""Pasted patches: where they come from, how large they are, that the rest stays."""

from __future__ import annotations

import numpy as np

from train.calibration.pasting import COPIES, PATCH_AREA, SCAR_AREA, paste_patches

SIZE = 64


def some_images(n_images: int = 6) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images of one colour each, so that a pixel tells where it was cut."""
    colours = np.arange(1, n_images + 1, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(colours, (n_images, SIZE, SIZE, 3)).copy()


def test_one_rectangle_of_a_good_image_is_pasted_and_the_rest_stays() -> None:
    images = some_images()
    before = images.copy()
    pasted = paste_patches(images, seed=0)
    assert pasted.shape == (COPIES * len(images), SIZE, SIZE, 3)
    assert np.array_equal(images, before)
    changed = pasted[..., 0] != np.concatenate([images] * COPIES)[..., 0]
    some_changed = 0
    for index, mask in enumerate(changed):
        if not mask.any():
            continue  # cut from the image itself
        some_changed += 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == height * width  # a rectangle
        assert len(np.unique(pasted[index][mask])) == 1  # of one image
        smallest, largest = SCAR_AREA if (index // len(images)) % 2 else PATCH_AREA
        slack = (height + width) / SIZE**2  # sides are whole pixels
        assert smallest - slack <= mask.mean() <= largest + slack
    assert some_changed > len(pasted) / 2


def test_the_seed_decides() -> None:
    images = some_images()
    assert np.array_equal(paste_patches(images, seed=1), paste_patches(images, seed=1))
    assert not np.array_equal(paste_patches(images, seed=1), paste_patches(images, seed=2))


def test_patches_of_a_strip_lie_anywhere_in_it() -> None:
    strips = some_images()[:, :16]
    pasted = paste_patches(strips, seed=0)
    changed = (pasted[..., 0] != np.concatenate([strips] * COPIES)[..., 0]).any(axis=0)
    assert changed.shape == (16, SIZE)
    assert changed.any(axis=1).all()
    assert changed.any(axis=0).mean() > 0.9
