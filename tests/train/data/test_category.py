"""Folders in MVTec AD's layout, broken images, the split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.category import CategoryData, TestImage, fingerprint, read_category, split_good
from train.data.layout import list_images
from train.data.pictures.loading import load_images
from train.errors import DataError


def write_image(path: Path, value: int = 100, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path)
    return path


def write_mask(path: Path, box: tuple[int, int, int, int], size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size, size), np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "pill"
    for name in ("train/good/001", "train/good/000", "test/good/000", "test/crack/000", "test/crack/001"):
        write_image(root / f"{name}.png", value=len(name))
    write_image(root / "test/scratch/000.JPG")
    write_mask(root / "ground_truth/crack/000_mask.png", (0, 0, 4, 4))
    write_mask(root / "ground_truth/crack/001_mask.png", (4, 4, 8, 8))
    (root / "train/good/notes.txt").write_text("no image")
    write_image(root / "train/good/.hidden.png")
    return root


def read(root: Path) -> CategoryData:
    return read_category(root, dataset="mvtec_ad", category="pill")


def test_mvtec_layout_is_read(mvtec: Path) -> None:
    data = read(mvtec)
    assert data.train_good == (mvtec / "train/good/000.png", mvtec / "train/good/001.png")
    assert [(image.path.relative_to(mvtec).as_posix(), image.defect) for image in data.test] == [
        ("test/crack/000.png", "crack"),
        ("test/crack/001.png", "crack"),
        ("test/good/000.png", "good"),
        ("test/scratch/000.JPG", "scratch"),
    ]
    assert [image.anomalous for image in data.test] == [True, True, False, True]
    masks = mvtec / "ground_truth/crack"
    assert [image.mask_path for image in data.test] == [
        masks / "000_mask.png",
        masks / "001_mask.png",
        None,
        None,
    ]
    assert not data.synthetic
    assert replace(data, dataset="synthetic").synthetic


def test_plain_folder_of_good_images_is_read(tmp_path: Path) -> None:
    paths = tuple(write_image(tmp_path / f"{name}.png") for name in "abc")
    data = read_category(tmp_path, dataset="folder", category="own")
    assert data.train_good == paths
    assert data.test == ()


def test_every_suffix_is_an_image(tmp_path: Path) -> None:
    file_names = ["a.png", "b.jpg", "c.JPEG", "d.bmp", "e.tif", "f.tiff", "g.webp"]
    for name in [*file_names, "h.gif", "i.npy"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path).images] == file_names


@pytest.mark.parametrize("folder", ["", "train/good"])
def test_a_category_without_good_images_is_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError, match=r"Category 'pill' has no good images: .* holds none of \.png, .*put"):
        read(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Data folder .*none does not exist; expected .*train/good"):
        read(tmp_path / "none")


def test_images_are_resized_stacked_and_kept_in_order(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", value=10 * i, size=(20 + i, 30)) for i in range(5)]
    loaded = load_images(paths, image_size=16, strict=True)
    assert loaded.pixels.shape == (5, 16, 16, 3)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.pixels[:, 8, 8].tolist() == [[10 * i, 0, 255 - 10 * i] for i in range(5)]
    assert (loaded.readable, loaded.broken) == ((0, 1, 2, 3, 4), ())


@pytest.fixture
def with_broken(tmp_path: Path) -> list[Path]:
    paths = [write_image(tmp_path / f"{i}.png", value=i) for i in range(5)]
    paths[1].write_bytes(b"")
    paths[3].write_bytes(paths[0].read_bytes()[:-30])
    return paths


def test_broken_images_are_named_skipped_and_counted(
    with_broken: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_images(with_broken, image_size=8, strict=False, what="good images")
    assert loaded.readable == (0, 2, 4)
    assert loaded.pixels[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert loaded.broken[0] == f"{with_broken[1]} is empty"
    assert loaded.broken[1].startswith(f"{with_broken[3]} is truncated or damaged")
    printed = capsys.readouterr().err.replace("\n", "")
    assert str(with_broken[1]) in printed
    assert str(with_broken[3]) in printed
    assert "2 of 5 good images skipped." in printed


def test_images_of_one_colour_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8), (200, 100, 50, 0)).save(clear)
    noisy = tmp_path / "noisy.png"
    Image.effect_noise((8, 8), 80).save(noisy)
    load_images([clear, noisy], image_size=8, strict=True, what="good images")
    told = " ".join(capsys.readouterr().err.split())
    assert "Warning: 1 of 2 good images are of one colour throughout, clear.png among them" in told


def test_strict_stops_at_a_broken_image(with_broken: list[Path]) -> None:
    with pytest.raises(DataError, match=r"1\.png is empty; mend or remove it, or leave out --strict"):
        load_images(with_broken, image_size=8, strict=True)


def test_no_readable_image_at_all_is_refused(with_broken: list[Path]) -> None:
    with pytest.raises(DataError, match=r"None of the 2 images can be read; the first: .*1\.png is empty"):
        load_images([with_broken[1], with_broken[3]], image_size=8, strict=False)


def test_fingerprint_follows_names_and_bytes(mvtec: Path) -> None:
    before = read(mvtec).fingerprint()
    assert len(before) == 64
    image = mvtec / "train/good/000.png"
    data = image.read_bytes()
    image.write_bytes(data + b"\0")
    assert read(mvtec).fingerprint() != before
    image.write_bytes(data)
    assert read(mvtec).fingerprint() == before
    image.rename(image.with_name("002.png"))
    assert read(mvtec).fingerprint() != before


def test_fingerprint_does_not_depend_on_where_the_data_lies(mvtec: Path, tmp_path: Path) -> None:
    before = read(mvtec).fingerprint()
    assert read(mvtec.rename(tmp_path / "moved")).fingerprint() == before


def test_test_fingerprint_sees_images_defects_and_masks(mvtec: Path) -> None:
    before = {read(mvtec).test_fingerprint()}
    write_mask(mvtec / "ground_truth/crack/000_mask.png", (0, 0, 1, 1))
    before.add(read(mvtec).test_fingerprint())
    (mvtec / "test/scratch").rename(mvtec / "test/dent")
    before.add(read(mvtec).test_fingerprint())
    train = read(mvtec).fingerprint()
    write_image(mvtec / "test/good/000.png", value=1)
    before.add(read(mvtec).test_fingerprint())
    assert len(before) == 4
    assert read(mvtec).fingerprint() == train


def test_fingerprint_keeps_name_and_bytes_apart(tmp_path: Path) -> None:
    first, second = write_image(tmp_path / "a.png", 1), write_image(tmp_path / "b.png", 2)
    assert fingerprint([first, second]) != fingerprint([second, first])


@pytest.mark.parametrize(
    ("n_images", "ratio", "n_held_out"),
    [(100, 0.15, 15), (412, 0.15, 62), (2, 0.15, 1), (2, 0.99, 1), (5, 0.01, 1), (5, 0.99, 4)],
)
def test_split_is_a_seeded_partition(n_images: int, ratio: float, n_held_out: int) -> None:
    train, held_out = split_good(n_images, holdout_ratio=ratio, seed=3)
    assert sorted([*train, *held_out]) == list(range(n_images))
    assert len(held_out) == n_held_out
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    again, other = (split_good(n_images, holdout_ratio=ratio, seed=seed)[1] for seed in (3, 4))
    assert held_out.tolist() == again.tolist()
    if n_images >= 100:
        assert held_out.tolist() != other.tolist()
        assert held_out.tolist() != list(range(n_held_out))


@pytest.mark.parametrize("n_images", [0, 1])
def test_too_few_images_to_split_are_refused(n_images: int) -> None:
    with pytest.raises(DataError, match=f"Found {n_images} good image; expected at least 2"):
        split_good(n_images, holdout_ratio=0.5, seed=0)


def test_test_image_good_is_not_anomalous() -> None:
    assert not TestImage(path=Path("a.png"), defect="good", mask_path=None).anomalous


@pytest.mark.parametrize("category", ["../pill", "a/b", "", ".hidden", "two words"])
def test_a_category_is_a_name_and_no_path(category: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"is no safe folder name; expected letters.*rename it"):
        read_category(tmp_path, dataset="folder", category=category)
