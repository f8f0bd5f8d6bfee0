"""Ground truth masks: read, resized, and refused where they contradict their image."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
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
        assert "1 of 1 ground truth masks lie over their images as these are stored" in told
    else:
        assert "1 of 1 ground truth masks fit both ways over images that EXIF turns" in told


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_deep_mask_with_alpha_marks_what_is_opaque(orientation: int, test: tuple[TestImage, ...]) -> None:
    tifffile = pytest.importorskip("tifffile")
    grey_and_alpha = np.ones((8, 8, 2), np.float32)
    grey_and_alpha[:, :4, 0] = 0
    grey_and_alpha[4:, :, 1] = 0
    path = test[0].path.with_name("mask.tif")
    turned = [(ExifTags.Base.Orientation, "H", 1, orientation)]
    tifffile.imwrite(path, grey_and_alpha, photometric="minisblack", extrasamples=[2], extratags=turned)
    masks = load_masks([replace(test[0], mask_path=path)], image_size=4)
    assert masks is not None
    upper_right = np.outer([1, 1, 0, 0], [0, 0, 1, 1]).astype(bool)
    np.testing.assert_array_equal(masks[0], upper_right if orientation == 1 else np.rot90(upper_right, -1))


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


def crack(folder: Path, name: str, *, suffix: str = ".png") -> TestImage:
    """A cracked image and where its mask is expected; the mask is not written."""
    return TestImage(
        path=write_image(folder / "crack" / f"{name}.png"),
        defect="crack",
        mask_path=folder / f"{name}_mask{suffix}",
    )


def loaded(*images: TestImage) -> NDArray[np.bool_]:
    masks = load_masks(images, image_size=8)
    assert masks is not None
    return masks


CORNER = np.zeros((8, 8), bool)
CORNER[:4, :4] = True


@pytest.mark.parametrize(
    ("dtype", "value", "suffix"),
    [
        (np.uint8, 1, ".png"), (np.uint8, 255, ".tif"), (np.uint16, 1, ".png"), (np.uint16, 1, ".tif"),
        (np.uint16, 65535, ".png"), (np.int32, 1, ".tif"), (np.int32, 70000, ".tif"),
    ],
)  # fmt: skip
def test_any_value_that_is_not_0_counts(
    dtype: type, value: int, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16-bit masks of 0 and 1 vanished, and passed for defects that nobody had marked."""
    image = crack(tmp_path, "000", suffix=suffix)
    assert image.mask_path is not None
    Image.fromarray((CORNER * value).astype(dtype)).save(image.mask_path)
    np.testing.assert_array_equal(loaded(image), [CORNER])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "a transparent colour"])
def test_masks_of_any_mode_count_where_they_are_not_black(mode: str, tmp_path: Path) -> None:
    image = crack(tmp_path, "000")
    assert image.mask_path is not None
    red = Image.fromarray(np.where(CORNER[..., None], np.uint8([3, 0, 0]), np.uint8(0)).astype(np.uint8))
    if mode == "RGBA":  # drawn on a transparent layer, whose pixels may be white
        rgba = np.full((8, 8, 4), 255, np.uint8)
        rgba[..., 3] = CORNER * 255
        Image.fromarray(rgba).save(image.mask_path)
    elif mode == "a transparent colour":
        red.save(image.mask_path, transparency=(0, 0, 0))
    elif mode == "P":
        red.quantize(2).save(image.mask_path)
    else:
        bright = Image.fromarray(CORNER.astype(np.uint8) * 255)
        (red if mode == "RGB" else bright.convert(mode)).save(image.mask_path)
    np.testing.assert_array_equal(loaded(image), [CORNER])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_greys_that_nobody_drew_count_and_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy, clean = crack(tmp_path, "000", suffix=".jpg"), crack(tmp_path, "001")
    assert noisy.mask_path is not None
    assert clean.mask_path is not None
    values = np.zeros((8, 8), np.uint8)
    values[2:5, 3:6] = 255
    Image.fromarray(values).save(noisy.mask_path, quality=40)
    Image.fromarray(np.roll(values, 1)).save(clean.mask_path)
    masks = loaded(noisy, clean)
    np.testing.assert_array_equal(masks[0], np.asarray(Image.open(noisy.mask_path)) > 0)
    assert masks[0].sum() > 9
    told = (
        f"1 of 2 ground truth masks hold greys between black and white, as JPEG and resizing leave them, "
        f"{noisy.mask_path} among them: all that is not 0 counts as defective; save masks as PNG with 0 and 255."
    )
    assert told.replace(" ", "") in said(capsys).replace(" ", "")  # a long path is broken over two lines


def test_a_few_numbers_are_no_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number for each defect is a usual kind of mask."""
    image = crack(tmp_path, "000")
    assert image.mask_path is not None
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) // 5).save(image.mask_path)
    assert loaded(image).sum() == 59
    assert said(capsys) == ""


def test_an_inverted_mask_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inverted, large = crack(tmp_path, "000"), crack(tmp_path, "001")
    assert inverted.mask_path is not None
    assert large.mask_path is not None
    values = np.full((8, 8), 255, np.uint8)
    values[3:5, 3:5] = 0
    Image.fromarray(values).save(inverted.mask_path)
    values = np.zeros((8, 8), np.uint8)
    values[1:7, 1:8] = 255  # most of the picture, and one side of it
    Image.fromarray(values).save(large.mask_path)
    assert loaded(inverted, large).sum() == 60 + 42
    sentence = said(capsys)
    assert "1 of 2 ground truth masks mark most of the picture and its border" in sentence
    assert "if the defect is black in them, invert them" in sentence


@pytest.mark.parametrize("copied", [False, True])
def test_a_mask_of_two_images_is_told(
    copied: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = crack(tmp_path, "000"), crack(tmp_path, "001")
    assert first.mask_path is not None
    assert second.mask_path is not None
    Image.fromarray(CORNER).save(first.mask_path)
    if copied:
        second.mask_path.write_bytes(first.mask_path.read_bytes())
    else:
        second = TestImage(path=second.path, defect="crack", mask_path=first.mask_path)
    np.testing.assert_array_equal(loaded(first, second), [CORNER, CORNER])
    assert "2 defective images share their ground truth mask with another" in said(capsys)


def test_empty_masks_are_shared_by_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [crack(tmp_path, name) for name in ("000", "001")]
    for image in images:
        assert image.mask_path is not None
        Image.new("L", (8, 8)).save(image.mask_path)
    assert not loaded(*images).any()
    assert said(capsys) == ""


def test_a_value_that_is_not_finite_is_no_mark(tmp_path: Path) -> None:
    image = crack(tmp_path, "000", suffix=".tif")
    assert image.mask_path is not None
    Image.fromarray(np.where(CORNER, np.float32("nan"), np.float32(0))).save(image.mask_path)
    with pytest.raises(DataError, match=r"Ground truth mask .*000_mask\.tif has values that are not finite"):
        loaded(image)


def test_a_mask_in_lab_colours_counts_where_it_is_not_black(tmp_path: Path) -> None:
    image = crack(tmp_path, "000", suffix=".tif")
    assert image.mask_path is not None
    lab = np.zeros((8, 8, 3), np.uint8)
    lab[..., 0] = 255 * CORNER
    Image.merge("LAB", [Image.fromarray(lab[..., channel]) for channel in range(3)]).save(image.mask_path)
    assert loaded(image).shape == (1, 8, 8)
