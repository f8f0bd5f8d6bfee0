"""What is told about a category's files before training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from model_repository.image_decoder.image_decoding import read_image
from tests.conftest import CATEGORY
from train.data.category import CategoryData, read_category
from train.data.checks import (
    check_training_data,
    copy_warnings,
    identical_files,
    page_warnings,
    require_own_images,
    size_warnings,
)
from train.data.file_sizes import upright_size
from train.data.shapes import read_shape
from train.errors import DataError
from train.runs import data_fingerprints


def write_image(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
    """Noise that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path).encode(), "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pill"
    for name in ("train/good/000", "train/good/001", "train/good/002", "test/good/000", "test/crack/000"):
        write_image(root / f"{name}.png")
    return root


def read(root: Path) -> CategoryData:
    return read_category(root, dataset="folder", category="pill")


def test_tiffs_of_several_pages_are_told(tmp_path: Path) -> None:
    page = Image.new("L", (8, 8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    page.save(tmp_path / "b.tif")
    (warning,) = page_warnings(read_category(tmp_path, dataset="folder", category="pill"))
    assert warning.startswith("1 images of 'pill' are TIFFs of several pages,")


def test_a_tiff_that_pillow_cannot_read_is_measured(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values, turned = np.zeros((4, 9, 3), np.float32), [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=turned)
    assert upright_size(tmp_path / "a.tif", decode=False) == (4, 9) == read_image(tmp_path / "a.tif").size


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_turned_image_is_measured_upright(form: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (9, 4)).save(tmp_path / "a", form, exif=exif)
    assert upright_size(tmp_path / "a", decode=True) == (4, 9) == read_image(tmp_path / "a").size


def test_large_scans_are_measured_without_pillows_warning(tmp_path: Path) -> None:
    Image.new("1", (11_000, 9_000)).save(tmp_path / "a.png")
    assert upright_size(tmp_path / "a.png", decode=False) == (11_000, 9_000)


def test_nothing_is_said_of_images_as_they_should_be(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(root / "train/good/003.png", (16, 16))  # just twice as large
    write_image(root / "train/good/004.png", (12, 8))  # just one and a half times as wide
    check_training_data(read(root), fingerprints={}, force=False)
    assert capsys.readouterr().err == ""


def test_very_different_sizes_are_told_with_both_files(root: Path) -> None:
    write_image(root / "test/crack/001.png", (17, 17))
    (warning,) = size_warnings(read(root))
    assert "differ in size, from train/good/000.png (8 x 8) to test/crack/001.png (17 x 17)" in warning
    write_image(root / "train/good/003.png", (7, 11))
    differs_in_shape = size_warnings(read(root))[1]
    assert (
        "differ in shape, from train/good/003.png (7 x 11) to train/good/000.png (8 x 8)" in differs_in_shape
    )


def test_a_size_is_that_of_the_upright_image_and_a_broken_file_has_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (4, 9)).save(tmp_path / "a.jpg", exif=exif)
    size = read_shape(tmp_path / "a.jpg")
    assert size is not None
    assert (size.width, size.height) == (9, 4)
    Image.new("RGB", (4, 9)).save(tmp_path / "a.png", exif=exif)
    assert upright_size(tmp_path / "a.png", decode=False) == (9, 4) == read_image(tmp_path / "a.png").size
    (tmp_path / "b.png").write_bytes(b"no image")
    assert read_shape(tmp_path / "b.png") is None


def test_test_images_that_are_trained_on_are_told(root: Path) -> None:
    shutil.copy(root / "train/good/001.png", root / "test/good/other.png")
    shutil.copy(root / "test/crack/000.png", root / "train/good/009.png")
    (warning,) = copy_warnings(read(root))
    assert warning.startswith(
        "LEAK: 2 of 3 test images of 'pill' are trained on as well, test/good/other.png being train/good/001.png"
    )


def test_copies_among_training_images_are_counted(root: Path) -> None:
    for name in ("010", "011"):
        shutil.copy(root / "train/good/001.png", root / f"train/good/{name}.png")
    (warning,) = copy_warnings(read(root))
    assert warning.startswith(
        "2 of 5 training images of 'pill' are copies, train/good/010.png of train/good/001.png among them"
    )


def test_a_test_image_in_two_folders_is_told(root: Path) -> None:
    shutil.copy(root / "test/good/000.png", root / "test/crack/007.png")
    (warning,) = copy_warnings(read(root))
    assert "lie in several folders, test/crack/007.png and test/good/000.png among them" in warning


def test_files_of_one_length_are_identical_only_with_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcd"]
    for path, content in zip(paths, (b"12", b"21", b"12", b"123"), strict=True):
        path.write_bytes(content)
    assert identical_files(paths) == [(paths[0], paths[2])]


def test_warnings_reach_the_user(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(root / "train/good/001.png", root / "train/good/010.png")
    check_training_data(read(root), fingerprints={}, force=False)
    assert capsys.readouterr().err.startswith("Warning: 1 of 4 training images")


def test_images_of_another_category_are_refused_unless_forced_or_accepted_before(root: Path) -> None:
    pill2 = read_category(shutil.copytree(root, root.with_name("pill2")), dataset="folder", category="pill2")
    trained = {"cap": "of other images", "pill": read(root).fingerprint()}
    with pytest.raises(DataError, match=r"'pill2' and 'pill' have the same 3 training images.* use --force"):
        check_training_data(pill2, fingerprints=trained, force=False)
    check_training_data(pill2, fingerprints=trained, force=True)
    # As --force left it: both are trained on these images, and either may be trained again.
    trained["pill2"] = pill2.fingerprint()
    require_own_images(pill2, fingerprints=trained)
    require_own_images(read(root), fingerprints=trained)
    # Another picture in place of one makes them other images.
    write_image(pill2.train_good[1], (9, 8))
    require_own_images(pill2, fingerprints={"pill": trained["pill"]})
    # Accepted images are no licence for a third category's.
    with pytest.raises(DataError, match=r"'pill' and 'cap' have the same 3 training images"):
        require_own_images(read(root), fingerprints={"cap": trained["pill"], "pill": "of other images"})


def test_other_images_and_unreadable_runs_are_no_matter(
    root: Path, tiny_data: CategoryData, tiny_runs: Path, tmp_path: Path
) -> None:
    runs = shutil.copytree(tiny_runs, tmp_path / "runs")
    (runs / "broken").mkdir()
    (runs / "broken" / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    fingerprints = data_fingerprints(runs)
    assert fingerprints == {CATEGORY: tiny_data.fingerprint()}
    require_own_images(read(root), fingerprints=fingerprints | {"pill": "of images before"})
    require_own_images(read(root), fingerprints=data_fingerprints(tmp_path / "no runs yet"))
