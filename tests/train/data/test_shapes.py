"""Whether pictures keep their shape, decided once from the good ones, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.category import CategoryData, read_category
from train.data.ground_truth import load_masks
from train.data.pictures.loading import load_images
from train.data.shapes import keeps_aspect


def category(root: Path, *sizes: tuple[int, int]) -> CategoryData:
    """Good images of these widths and heights; one defective image of the first, its mask in the upper left."""
    places = [root / "train" / "good" / f"{index}.png" for index in range(len(sizes))]
    places += [root / "test" / "dent" / "a.png", root / "ground_truth" / "dent" / "a_mask.png"]
    for place, (width, height) in zip(places, [*sizes, sizes[0], sizes[0]], strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((height, width), 90, np.uint8)
        pixels[0, 0] = 200
        if "mask" in place.name:
            pixels = np.zeros((height, width), np.uint8)
            pixels[: height // 2, : width // 2] = 255
        Image.fromarray(pixels).save(place)
    return read_category(root, dataset="folder", category="cup")


def test_pictures_of_one_shape_are_stretched_and_that_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = category(tmp_path, (80, 40), (160, 80))
    assert keeps_aspect(data, asked="auto", size=64) is False
    told = " ".join(capsys.readouterr().err.split())
    assert "Images of 'cup' are 80 x 40 pixels and are stretched onto 64, one side 2.00 times as far" in told
    assert "--image-size 32x96 (height x width) would do so less, and --aspect keep not at all." in told
    assert keeps_aspect(data, asked="auto", size=(32, 64)) is False
    assert capsys.readouterr().err == ""


def test_pictures_of_several_shapes_keep_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = category(tmp_path, (80, 40), (50, 40))
    assert keeps_aspect(data, asked="auto", size=(32, 64)) is True
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "Images of 'cup' differ in shape, from train/good/1.png (50 x 40) to train/good/0.png (80 x 40): each keeps "
        "its shape within 32x64 pixels, and what is left beside it repeats its edge; --aspect stretch makes them fill "
        "it."
    ) in told
    assert keeps_aspect(data, asked="stretch", size=(32, 64)) is False
    assert "all are stretched onto 32x64 pixels, each differently, as asked for" in " ".join(
        capsys.readouterr().err.split()
    )
    assert keeps_aspect(data, asked="keep", size=(32, 64), quiet=True) is True
    assert capsys.readouterr().err == ""


def test_a_pixel_more_or_less_is_no_other_shape(tmp_path: Path) -> None:
    assert (
        keeps_aspect(category(tmp_path, (400, 300), (401, 300), (800, 600)), asked="auto", size=64) is False
    )


def test_masks_lie_over_pictures_that_keep_their_shape(tmp_path: Path) -> None:
    data = category(tmp_path, (80, 40), (40, 80))
    loaded = load_images(data.train_good, image_size=(32, 32), strict=True, keep_aspect=True)
    assert loaded.shown is not None
    assert [mask.sum() for mask in loaded.shown] == [16 * 32, 32 * 16]
    assert loaded.shown[0, 8:24].all()
    (mask,) = load_masks(data.test, image_size=(32, 32), keep_aspect=True)  # type: ignore[misc]
    expected = np.zeros((32, 32), bool)
    expected[8:16, :16] = True
    np.testing.assert_array_equal(mask, expected)
    assert load_images(data.train_good, image_size=32, strict=True).shown is None
