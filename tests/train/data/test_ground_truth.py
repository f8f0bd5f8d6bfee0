"""Ground truth masks: read, resized, and refused where they contradict their image."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model_repository.image_decoder.image_decoding import read_image, resize_image
from tests.train.data.test_category import write_image, write_mask
from train.data.category import TestImage
from train.data.ground_truth import load_masks
from train.errors import DataError


@pytest.fixture
def test(tmp_path: Path) -> tuple[TestImage, ...]:
    """Two cracked images with masks, a good one and a scratched one without."""
    masks = tmp_path / "ground_truth/crack"
    return (
        TestImage(
            path=write_image(tmp_path / "crack/000.png"),
            defect="crack",
            mask_path=write_mask(masks / "000_mask.png", (0, 0, 4, 4)),
        ),
        TestImage(
            path=write_image(tmp_path / "crack/001.png"),
            defect="crack",
            mask_path=write_mask(masks / "001_mask.png", (4, 4, 8, 8)),
        ),
        TestImage(path=write_image(tmp_path / "good/000.png"), defect="good", mask_path=None),
        TestImage(path=write_image(tmp_path / "scratch/000.png"), defect="scratch", mask_path=None),
    )


def test_masks_are_resized_and_stay_masks(test: tuple[TestImage, ...]) -> None:
    masks = load_masks(test[:3], image_size=4)
    assert masks is not None
    assert masks.dtype == np.bool_
    corner = np.zeros((4, 4), bool)
    corner[:2, :2] = True
    np.testing.assert_array_equal(masks, [corner, corner[::-1, ::-1], np.zeros((4, 4), bool)])


def test_an_image_without_a_mask_has_an_empty_one_beside_others(test: tuple[TestImage, ...]) -> None:
    masks = load_masks(test, image_size=4)
    assert masks is not None
    assert masks.any(axis=(1, 2)).tolist() == [True, True, False, False]


def test_without_any_mask_there_are_none(test: tuple[TestImage, ...]) -> None:
    assert load_masks(test[2:], image_size=4) is None


def test_a_broken_mask_is_named(test: tuple[TestImage, ...]) -> None:
    assert test[0].mask_path is not None
    test[0].mask_path.write_text("no image")
    with pytest.raises(DataError, match=r"Ground truth mask .*000_mask\.png is not an image"):
        load_masks(test[:1], image_size=4)


def test_a_mask_of_another_size_is_refused_with_both_sizes(test: tuple[TestImage, ...]) -> None:
    write_image(test[1].path, size=(8, 6))
    with pytest.raises(
        DataError,
        match=r"001_mask\.png is 8 x 8 pixels, its image .*001\.png 8 x 6; expected equal sizes; draw",
    ):
        load_masks(test, image_size=4)


def test_a_mask_fits_the_upright_image(test: tuple[TestImage, ...]) -> None:
    """A photograph stored lying is judged upright, and its mask is drawn over it upright."""
    lying = Image.new("RGB", (8, 6))
    exif = lying.getexif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(test[0].path, exif=exif)
    assert test[0].mask_path is not None
    Image.new("L", (6, 8)).save(test[0].mask_path)
    assert load_masks(test[:1], image_size=4) is not None
    Image.new("L", (8, 5)).save(test[0].mask_path)
    with pytest.raises(DataError, match=r"8 x 5 pixels, its image .* 6 x 8"):
        load_masks(test[:1], image_size=4)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_over_the_stored_pixels_is_turned_with_its_image(
    form: str, orientation: int, test: tuple[TestImage, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """One corner is white on the stored image and on its mask: it is the same corner afterwards."""
    image, mask_path = test[0].path, test[0].mask_path
    assert mask_path is not None
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(image, form, exif=exif)
    Image.fromarray(pixels[..., 0]).save(mask_path)
    masks = load_masks(test[:1], image_size=4)
    assert masks is not None
    told = " ".join(capsys.readouterr().err.split())
    if orientation >= 5:
        np.testing.assert_array_equal(masks[0], resize_image(read_image(image), 4)[..., 0] > 127)
        assert (
            "1 ground truth masks, 000_mask.png among them, lie over their images as these are stored" in told
        )
    else:
        assert (
            "EXIF turns the images of 1 ground truth masks, 000_mask.png among them, and the masks fit"
            in told
        )


def test_a_vanished_image_is_named_with_its_mask(test: tuple[TestImage, ...]) -> None:
    test[0].path.unlink()
    with pytest.raises(
        DataError, match=r"crack/000\.png cannot be read \(No such file.*000_mask\.png has no image"
    ):
        load_masks(test, image_size=4)


@pytest.mark.parametrize("chunk", ["behind the pixels", "of a converter"])
def test_a_mask_fits_a_png_whose_orientation_is_not_in_its_header(
    test: tuple[TestImage, ...], chunk: str
) -> None:
    lying = Image.new("RGB", (8, 6))
    exif = lying.getexif()
    exif[ExifTags.Base.Orientation] = 6
    info, raw = PngInfo(), exif.tobytes()
    if chunk == "of a converter":
        info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8d}\n{raw.hex()}\n")
    lying.save(test[0].path, pnginfo=info)
    if chunk == "behind the pixels":
        body = b"eXIf" + raw.removeprefix(b"Exif\0\0")
        exif_chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        before_end, end = test[0].path.read_bytes()[:-12], test[0].path.read_bytes()[-12:]
        test[0].path.write_bytes(before_end + exif_chunk + end)
    assert test[0].mask_path is not None
    Image.new("L", (6, 8)).save(test[0].mask_path)
    assert load_masks(test[:1], image_size=4) is not None
    Image.new("L", (8, 5)).save(test[0].mask_path)
    with pytest.raises(DataError, match=r"8 x 5 pixels, its image .* 6 x 8"):
        load_masks(test[:1], image_size=4)


def test_a_defect_marked_on_a_good_image_is_refused(test: tuple[TestImage, ...]) -> None:
    path = test[0].mask_path
    good = TestImage(path=test[2].path, defect="good", mask_path=path)
    with pytest.raises(DataError, match=r"000_mask\.png marks a defect on an image in test/good.*; move"):
        load_masks([good], image_size=4)
    assert path is not None
    Image.new("L", (8, 8)).save(path)
    masks = load_masks([good], image_size=4)
    assert masks is not None
    assert not masks.any()
