"""Folders as people have them: taken where it is plain what is meant, told in a note, refused with a remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.data.test_category import write_image, write_mask
from train.data import layout
from train.data.category import CategoryData, read_category
from train.data.pictures.loading import load_images
from train.data.sources import find_category
from train.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good images to train on, one to test, two scratched ones with masks."""
    root = tmp_path / "pill"
    for index, name in enumerate(("train/good/000", "train/good/001", "test/good/000")):
        write_image(root / f"{name}.png", value=index)
    for name in ("000", "001"):
        write_image(root / f"test/scratch/{name}.png", value=7)
        write_mask(root / f"ground_truth/scratch/{name}_mask.png", (0, 0, 4, 4))
    return root


def read(root: Path) -> CategoryData:
    return read_category(root, dataset="folder", category="pill")


def kinds(data: CategoryData) -> list[str]:
    return [image.defect for image in data.test]


def note(data: CategoryData) -> str:
    assert len(data.notes) == 1, data.notes
    return data.notes[0]


def masked(data: CategoryData) -> list[str]:
    return [image.mask_path.name for image in data.test if image.mask_path is not None]


def test_mvtec_ads_own_layout_needs_no_word(root: Path) -> None:
    data = read(root)
    assert data.notes == ()
    assert (len(data.train_good), kinds(data)) == (2, ["good", "scratch", "scratch"])
    assert data.test_dir == root / "test"


@pytest.mark.parametrize("name", ["Good", "GOOD", "ok", "OK", "normal"])
@pytest.mark.parametrize("place", ["train", "test"])
def test_good_folders_by_other_names_are_taken_and_told(root: Path, name: str, place: str) -> None:
    (root / place / "good").rename(root / place / name)
    data = read(root)
    assert len(data.train_good) == 2
    assert sorted(kinds(data)) == ["good", "scratch", "scratch"]
    assert note(data).startswith(f"{root}/{place}/{name}/ is taken for {place}/good/:")


def test_folders_in_another_case_are_taken(root: Path) -> None:
    for name, other in (("train", "Train"), ("test", "TEST"), ("ground_truth", "Ground Truth")):
        (root / name).rename(root / other)
    (root / "Ground Truth/scratch").rename(root / "Ground Truth/Scratch")
    data = read(root)
    assert (len(data.train_good), len(data.test), len(masked(data))) == (2, 3, 2)
    assert data.test_dir == root / "TEST"


def test_two_folders_of_one_meaning_are_refused(root: Path) -> None:
    write_image(root / "train/Good/000.png")
    with pytest.raises(
        DataError, match=r"train holds both Good and good; expected one of them; put their files"
    ):
        read(root)


def test_images_in_sub_folders_are_taken_and_told(root: Path) -> None:
    for index in range(3):
        write_image(root / f"train/good/shift2/{index}.png", value=20 + index)
    write_image(root / "test/scratch/cam1/000.png", value=30)
    write_mask(root / "ground_truth/scratch/cam1/000_mask.png", (0, 0, 2, 2))
    data = read(root)
    assert len(data.train_good) == 5
    assert "train/good holds images in sub-folders too (shift2): all 5 are taken." in data.notes[0]
    cam1 = next(image for image in data.test if image.path.parent.name == "cam1")
    assert cam1.defect == "scratch"
    assert cam1.mask_path == root / "ground_truth/scratch/cam1/000_mask.png"


def test_images_straight_in_test_are_told(root: Path) -> None:
    write_image(root / "test/000.png", value=9)
    data = read(root)
    assert len(data.test) == 3
    assert "Left out: 1 images straight in" in note(data)
    assert "expected test/good/ and test/<defect>/; put each into one of these" in note(data)


def test_images_straight_beside_the_folders_are_told(root: Path) -> None:
    write_image(root / "000.png", value=9)
    data = read(root)
    assert len(data.train_good) == 2
    assert f"Left out: 1 images straight in {root}; expected train/good/" in note(data)


@pytest.mark.parametrize(
    "place", ["test/scratch/000_mask", "test/scratch/cam1/001_MASK", "test/scratch/Masks/000"]
)
def test_masks_beside_the_images_are_no_defective_parts(root: Path, place: str) -> None:
    write_mask(root / f"{place}.png", (0, 0, 4, 4))
    data = read(root)
    assert kinds(data) == ["good", "scratch", "scratch"]
    assert f"Left out: 1 images in {root}/test/scratch that are masks by their names" in note(data)


def test_an_image_that_is_called_mask_is_a_part_where_no_other_has_its_name(root: Path) -> None:
    write_image(root / "test/scratch/gas_mask.png", value=9)
    assert kinds(read(root)) == ["good", *["scratch"] * 3]


def test_files_of_a_plain_folder_that_are_no_images_are_told(tmp_path: Path) -> None:
    write_image(tmp_path / "000.png", value=1)
    (tmp_path / "001.gif").write_bytes(b"GIF89a")
    data = read(tmp_path)
    assert len(data.train_good) == 1
    assert f"Left out: 001.gif in {tmp_path}; expected files that end in .png" in note(data)


def test_a_hidden_folder_is_no_defect_kind(root: Path) -> None:
    write_image(root / "test/.ipynb_checkpoints/000-checkpoint.png")
    (root / "test/__MACOSX").mkdir()
    (root / "test/__MACOSX/._000.png").write_bytes(b"x")
    data = read(root)
    assert set(kinds(data)) == {"good", "scratch"}
    assert f"Left out: .ipynb_checkpoints/ in {root}/test" in note(data)


def test_files_that_are_no_images_are_told_and_those_of_systems_are_not(root: Path) -> None:
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png"):
        (root / "train/good" / name).write_bytes(b"x")
    (root / "train/good/notes.txt").write_text("x")
    (root / "train/good/002.gif").write_text("x")
    (root / "train/good/003.png").symlink_to("/nowhere/003.png")
    assert (
        f"Left out: 002.gif, 003.png (a link to nothing), notes.txt in {root}/train/good; expected files that end in "
    ) in note(read(root))


def test_a_category_of_other_files_says_what_was_found(root: Path) -> None:
    for path in sorted((root / "train/good").iterdir()):
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(
        DataError, match=r"Category 'pill' has no good images: .*Left out: 000\.gif, 001\.gif in"
    ):
        read(root)


def test_an_empty_defect_folder_is_told(root: Path) -> None:
    (root / "test/dent").mkdir()
    assert note(read(root)) == f"{root}/test/dent holds no images; put some there, or remove it."


def test_links_are_followed_and_a_loop_ends(root: Path, tmp_path: Path) -> None:
    (root / "train/good").rename(tmp_path / "elsewhere")
    (root / "train/good").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    assert len(read(root).train_good) == 2


def test_folders_beside_the_known_ones_are_told(root: Path) -> None:
    write_image(root / "validation/good/000.png")
    assert note(read(root)).startswith(f"Left out: validation/ (1 images) in {root}; expected train/good/, ")


def test_good_beside_bad(root: Path, tmp_path: Path) -> None:
    (root / "train/good").rename(tmp_path / "good")
    (root / "test/scratch").rename(tmp_path / "bad")
    for path in sorted(root.rglob("*.png")):
        path.unlink()
    data = read(tmp_path)
    assert (len(data.train_good), data.test) == (2, ())
    assert data.notes[0] == f"{tmp_path}/good/ is taken for train/good/: 2 images."
    assert data.notes[1].startswith(f"Left out: bad/ (2 images) in {tmp_path}; expected train/good/")


def test_training_images_without_a_good_folder(root: Path) -> None:
    for path in sorted((root / "train/good").iterdir()):
        path.rename(root / "train" / path.name)
    (root / "train/good").rmdir()
    data = read(root)
    assert len(data.train_good) == 2
    assert note(data) == f"{root}/train/ is taken for train/good/: 2 images."
    write_image(root / "train/bad/000.png")
    with pytest.raises(
        DataError, match=r"train has no folder good/; it holds bad/ and 2 images; expected train/good"
    ):
        read(root)


def test_a_folder_of_folders_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    write_image(tmp_path / "cam1/000.png")
    write_image(tmp_path / "cam2/000.png")
    with pytest.raises(
        DataError, match=r"has no folder train/good; its images lie in cam1/, cam2/; expected"
    ):
        read(tmp_path)


RENAMED: dict[str, Callable[[Path], Path]] = {
    "without _mask": lambda path: path.with_name(path.name.replace("_mask", "")),
    "bmp": lambda path: path.with_suffix(".bmp"),
    "jpg": lambda path: path.with_suffix(".jpg"),
    "upper case": lambda path: path.with_name(path.name.upper()),
    "a folder each": lambda path: path.parent / path.name.removesuffix("_mask.png") / "000.png",
}


@pytest.mark.parametrize("how", RENAMED)
def test_masks_by_other_names_are_found(root: Path, how: str) -> None:
    for path in sorted((root / "ground_truth/scratch").iterdir()):
        renamed = RENAMED[how](path)
        renamed.parent.mkdir(exist_ok=True)
        path.rename(renamed)
    data = read(root)
    assert len(masked(data)) == 2
    assert data.notes == ()


def test_masks_that_belong_to_no_image_are_told(root: Path) -> None:
    mask = root / "ground_truth/scratch/000_mask.png"
    mask.rename(mask.with_name("x000_mask.png"))
    write_mask(root / "ground_truth/dent/000_mask.png", (0, 0, 1, 1))
    write_mask(root / "ground_truth/003_mask.png", (0, 0, 1, 1))
    data = read(root)
    assert masked(data) == ["001_mask.png"]
    unused, bare, strays = data.notes
    assert "1 of 2 masks" in unused
    assert "x000_mask.png among them; expected <image>_mask.png, as 000_mask.png" in unused
    assert "1 of 2 images" in bare
    assert "000.png among them; give every defective image one, or none" in bare
    assert "belong to no folder of test/ (dent/, 003_mask.png)" in strays


def test_one_mask_is_not_shared_by_two_images_of_one_name(root: Path) -> None:
    write_image(root / "test/scratch/cam1/000.png", value=30)
    data = read(root)
    assert [image.mask_path is not None for image in data.test if image.path.name == "000.png"] == [
        False, True, False,
    ]  # fmt: skip


def test_names_that_are_not_utf8_are_taken_and_told_in_readable_words(root: Path) -> None:
    odd = (root / "train/good/000.png").rename(root / "train/good" / os.fsdecode(b"Gr\xfcn.png"))
    (root / "train/good" / os.fsdecode(b"Gr\xfcn.txt")).touch()
    data = read(root)
    assert odd in data.train_good
    assert len(data.fingerprint()) == 64
    assert r"Left out: Gr\xfcn.txt in" in note(data)
    note(data).encode()


def test_a_folder_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read everything: the system's refusal is put in its place."""
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (root / "train/good/locked").mkdir()
    monkeypatch.setattr(layout.os, "scandir", refuse)
    with pytest.raises(
        DataError, match=r"train/good/locked cannot be read \(Permission denied\); make it readable"
    ):
        read(root)


def test_a_vanished_image_is_one_sentence(root: Path) -> None:
    data = read(root)
    data.train_good[0].unlink()
    with pytest.raises(
        DataError, match=r"000\.png cannot be read \(No such file or directory\); make it readable"
    ):
        data.fingerprint()
    loaded = load_images(data.train_good, image_size=8, strict=False)
    assert loaded.broken == (f"{data.train_good[0]} cannot be read (No such file or directory)",)


def test_notes_are_printed_where_a_category_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "test/good").rename(root / "test/ok")
    find_category("pill", data=str(root), data_dir=root)
    assert "is taken for test/good/: 1 images." in " ".join(capsys.readouterr().err.split())


def test_other_categories_of_a_folder_are_listed_whatever_their_case(root: Path) -> None:
    (root / "train").rename(root / "Train")
    with pytest.raises(DataError, match=r"Unknown category 'nut' in .*; it holds pill"):
        find_category("nut", data=str(root.parent), data_dir=root)
