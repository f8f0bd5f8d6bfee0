"""The threshold method: by hand, against SciPy, on rendered parts, and where it must keep the whole picture."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model_repository.foreground.foreground_mask import (
    background_contrast,
    contrast_threshold,
    fill_holes,
    foreground_mask,
    label_regions,
    remove_specks,
    widen,
)
from train.data.sources.synthetic.defects import render
from train.data.sources.synthetic.designs import design_part, generator
from train.data.sources.synthetic.rendering import place_part

Picture = NDArray[np.uint8]
SIDE = 128


def picture(background: int = 200) -> Picture:
    """An empty picture [S, S, 3] with a little noise."""
    noise = np.random.default_rng(0).integers(-4, 5, (SIDE, SIDE, 3))
    return (background + noise).astype(np.uint8)


def with_square(image: Picture, level: int, *, at: int, side: int) -> Picture:
    changed = image.copy()
    changed[at : at + side, at : at + side] = level
    return changed


def mask_of(image: Picture) -> NDArray[np.bool_]:
    return foreground_mask(image[None])[0]


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[[pixel == "#" for pixel in row] for row in rows]])


def test_a_square_is_found_with_its_margin() -> None:
    found = mask_of(with_square(picture(), 60, at=40, side=30))
    expected = np.zeros((SIDE, SIDE), bool)
    expected[38:72, 38:72] = True  # 128 / 64 = 2 pixels wider
    np.testing.assert_array_equal(found, expected)


def test_contrast_is_the_largest_channel_difference_from_the_borders_median() -> None:
    image = np.full((1, 64, 64, 3), (10, 100, 250), np.uint8)
    image[0, 30, 30] = (30, 90, 200)
    image[0, 0, :5] = 0  # less than half of the border
    contrast = background_contrast(image)
    assert contrast.dtype == np.uint8
    assert (contrast[0, 30, 30], contrast[0, 20, 20], contrast[0, 0, 0]) == (50, 0, 250)


def test_the_threshold_follows_the_borders_noise() -> None:
    contrast = np.zeros((2, 64, 64), np.uint8)
    contrast[1] = 16
    np.testing.assert_array_equal(contrast_threshold(contrast).ravel(), [20, 32])


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_scipys(seed: int) -> None:
    """Noise is full of winding regions; both colours are numbered, each image on its own."""
    rng = np.random.default_rng(seed)
    noise = rng.random((3, 24, 24)) < 0.6
    labels = label_regions(noise)
    for image, found in zip(noise, labels, strict=True):
        black, n_black = ndimage.label(image)
        white, n_white = ndimage.label(~image)
        pairs = set(zip(np.where(image, black, -white).ravel().tolist(), found.ravel().tolist(), strict=True))
        assert len(pairs) == n_black + n_white == len(np.unique(found))
    assert len(np.unique(labels[0])) + len(np.unique(labels[1:])) == len(np.unique(labels))


@pytest.mark.parametrize("seed", range(3))
def test_holes_and_margin_are_scipys(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(48, 48)), 1.5) > 0.02
    np.testing.assert_array_equal(fill_holes(noise[None])[0], ndimage.binary_fill_holes(noise))
    np.testing.assert_array_equal(
        widen(noise[None], 2)[0], ndimage.binary_dilation(noise, np.ones((5, 5), bool))
    )


def test_a_speck_is_small_beside_its_own_pictures_largest_piece() -> None:
    large = np.zeros((2, 40, 40), bool)
    large[0, 5:25, 5:25] = True  # 400 pixels; 20 are no speck, 19 are
    large[0, 30, :20] = True
    large[0, 35, :19] = True
    large[1, 35, :19] = True  # alone in its picture
    kept = remove_specks(large)
    expected = large.copy()
    expected[0, 35] = False
    np.testing.assert_array_equal(kept, expected)


def test_fill_holes_by_hand() -> None:
    ring = mask(
        "......",
        ".####.",
        ".#..#.",
        ".#..#.",
        ".####.",
        "....#.",
    )
    filled = ring.copy()
    filled[0, 2:4, 2:4] = True
    np.testing.assert_array_equal(fill_holes(ring), filled)
    ring[0, 2, 1] = False  # open to the outside
    np.testing.assert_array_equal(fill_holes(ring), ring)


def test_a_hole_in_the_part_is_the_part_and_a_fibre_beside_it_is_not() -> None:
    image = with_square(picture(), 60, at=40, side=50)
    image = with_square(image, 200, at=60, side=10)
    image[10:12, 10:60] = 20
    found = mask_of(image)
    assert found[65, 65]
    assert not found[:30].any()


def test_a_large_stain_beside_the_part_is_kept() -> None:
    """It may be a piece that broke off: what is not clearly a speck is judged."""
    found = mask_of(with_square(with_square(picture(), 60, at=50, side=40), 20, at=8, side=20))
    assert found[15, 15]
    assert found[70, 70]


def test_a_black_stain_on_a_pale_part_does_not_hide_the_part() -> None:
    """Otsu's threshold lies between the stain and everything else."""
    image = with_square(with_square(picture(200), 165, at=30, side=60), 0, at=50, side=20)
    assert mask_of(image)[30:90, 30:90].all()
    contrast = background_contrast(image[None])[0]
    otsu = contrast > otsu_threshold(contrast)
    assert otsu[50:70, 50:70].all()
    assert otsu.sum() == 20 * 20  # the stain, and nothing of the part


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """The level that leaves the least variance within the two classes, by trying all."""

    def variance_within(level: int) -> float:
        sides = (values[values <= level], values[values > level])
        return sum(side.size * float(side.var()) for side in sides if side.size)

    return min(range(int(values.max())), key=variance_within)


@pytest.mark.parametrize("image_size", [64, 128, 256])
@pytest.mark.parametrize("category", ["pill", "screw", "hazelnut", "carpet", "zipper"])
def test_rendered_parts_are_found_whole(category: str, image_size: int) -> None:
    """Shadow and margin belong to the mask, so it is larger than the part; nothing of the part is missing."""
    design = design_part(category, 0)
    for index in range(3):
        part, _ = place_part(design, generator(0, f"{category}/{index}"), image_size)
        image, _ = render(design, generator(0, f"{category}/{index}"), image_size=image_size)
        covered = (part.depth > 0).reshape(image_size, 2, image_size, 2).mean(axis=(1, 3))
        found = mask_of(image)
        assert found[covered == 1].mean() > 0.99
        assert (found & (covered > 0.5)).sum() / (found | (covered > 0.5)).sum() > 0.65
        assert not found[0].any()  # the background is there to be removed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["plain", "noise", "stripes", "half", "small"])
def test_a_picture_without_a_clear_part_is_kept_whole(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = picture()
    if kind == "noise":  # a rough texture
        image = (128 + 40 * rng.normal(size=(SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    elif kind == "stripes":
        image[:, (np.arange(SIDE) // 8) % 2 == 0] = 90
    elif kind == "half":  # the part touches too much of the border
        image[:, : SIDE // 2] = 60
    elif kind == "small":  # 1 %: rather a defect on a texture than a part
        image = with_square(image, 30, at=60, side=9)
    assert mask_of(image).all()


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    images = np.stack(
        [picture(), with_square(picture(), 60, at=0, side=30), with_square(picture(), 60, at=50, side=40)]
    )
    together = foreground_mask(images)
    assert together.shape == (3, SIDE, SIDE)
    assert together.dtype == np.bool_
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(found, mask_of(image))
