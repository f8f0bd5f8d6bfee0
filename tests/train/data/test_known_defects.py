"""Which files of a folder are known defects, with which masks; what is odd is said in one sentence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.category import CategoryData, read_category
from train.data.ground_truth import load_masks
from train.data.known_defects import KnownDefects, check_known_defects, load_known_defects, read_known_defects
from train.errors import DataError


def image(path: Path, seed: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)).save(path)
    return path


def found(root: Path) -> dict[str, tuple[str, str | None]]:
    """Kind and mask of each known defect."""
    known = read_known_defects(root)
    return {
        one.path.relative_to(root).as_posix(): (
            one.defect,
            None if one.mask_path is None else one.mask_path.relative_to(root).as_posix(),
        )
        for one in known.images
    }


@pytest.fixture
def good(tmp_path: Path) -> CategoryData:
    """Three good images of 8 x 8 pixels, and one defective test image."""
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"train/good/{number}.png", number)
    image(root / "test/crack/0.png", 10)
    return read_category(root, dataset="folder", category="bolt")


def check(root: Path, data: CategoryData, capsys: pytest.CaptureFixture[str]) -> str:
    check_known_defects(read_known_defects(root), data)
    return " ".join(capsys.readouterr().err.split())


def test_images_straight_in_a_folder_with_masks_beside_them_or_in_ground_truth(tmp_path: Path) -> None:
    image(tmp_path / "a.png", 1)
    image(tmp_path / "b.png", 2)
    image(tmp_path / "c.png", 3)
    image(tmp_path / "b_mask.png", 4, mode="L")
    image(tmp_path / "ground_truth/c_mask.png", 5, mode="L")
    assert found(tmp_path) == {
        "a.png": ("known", None),
        "b.png": ("known", "b_mask.png"),
        "c.png": ("known", "ground_truth/c_mask.png"),
    }


def test_folders_are_kinds_and_good_images_are_left_out(tmp_path: Path) -> None:
    image(tmp_path / "crack/a.png", 1)
    image(tmp_path / "dent/a.png", 2)
    image(tmp_path / "OK/a.png", 3)
    image(tmp_path / "ground_truth/dent/a_mask.png", 4, mode="L")
    assert found(tmp_path) == {
        "crack/a.png": ("crack", None),
        "dent/a.png": ("dent", "ground_truth/dent/a_mask.png"),
    }
    (note,) = [note for note in read_known_defects(tmp_path).notes if "good ones" in note]
    assert note == f"Left out of the known defects: 1 images in {tmp_path} that lie in a folder of good ones."


def test_what_the_page_exports_is_taken(tmp_path: Path) -> None:
    """A training set of MVTec AD's layout over the images that there were, with the escapes in test/escape."""
    image(tmp_path / "train/good/0.png", 0)
    image(tmp_path / "test/good/1.png", 1)
    image(tmp_path / "test/escape/mark-0123456789abcdef.png", 2)
    image(tmp_path / "test/crack/3.png", 3)
    image(tmp_path / "ground_truth/escape/mark-0123456789abcdef_mask.png", 4, mode="L")
    (tmp_path / "marks.json").write_text("{}")
    assert found(tmp_path) == {
        "test/crack/3.png": ("crack", None),
        "test/escape/mark-0123456789abcdef.png": (
            "escape",
            "ground_truth/escape/mark-0123456789abcdef_mask.png",
        ),
    }


def test_a_folder_without_defects_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(DataError, match=rf"^Known defects {folder}: the folder does not exist; expected"):
        read_known_defects(folder)
    folder.mkdir()
    with pytest.raises(DataError, match="holds no image of a defective part"):
        read_known_defects(folder)
    (folder / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="holds no image of a defective part"):
        read_known_defects(folder)
    image(folder / "good/0.png", 0)
    with pytest.raises(DataError, match="it holds 1 good ones; expected images of defective parts"):
        read_known_defects(folder)
    with pytest.raises(DataError, match=r"the folder is a file; expected"):
        read_known_defects(folder / "notes.txt")


def test_copies_count_once(tmp_path: Path) -> None:
    first = image(tmp_path / "crack/a.png", 1)
    (tmp_path / "dent").mkdir()
    shutil.copy(first, tmp_path / "dent/b.png")
    known = read_known_defects(tmp_path)
    assert [one.path for one in known.images] == [first]
    assert "1 of 2 known defects are copies, b.png of a.png among them; each is counted once." in known.notes


def test_a_training_image_is_refused_and_a_test_image_told(
    good: CategoryData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defects = tmp_path / "defects"
    image(defects / "x.png", 20)
    shutil.copy(good.test[0].path, defects / "y.png")
    said = check(defects, good, capsys)
    assert "Warning: 1 of 2 known defects of 'bolt' are test images, too:" in said
    assert said.count("Warning") == 1
    shutil.copy(good.train_good[1], defects / "z.png")
    sentence = f"Known defect {defects / 'z.png'} is the training image {good.train_good[1]}, byte for byte; "
    with pytest.raises(DataError, match=re.escape(sentence)):
        check(defects, good, capsys)
    with pytest.raises(DataError, match="the same file"):
        check(good.root / "train/good", good, capsys)


def test_other_sizes_are_told(good: CategoryData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "defects/a.png", 20)
    image(tmp_path / "defects/b.png", 21, size=(30, 30))
    said = check(tmp_path / "defects", good, capsys)
    assert "Warning: 1 of 2 known defects have another size or shape than good images of 'bolt'" in said
    assert "b.png (30 x 30) among them" in said
    assert "0.png (8 x 8) is a good one" in said


def load(known: KnownDefects, *, bit_depth: int = 8, strict: bool = False) -> int:
    loaded = load_known_defects(
        known, image_size=32, strict=strict, bit_depth=bit_depth, keep_aspect=False, category="bolt"
    )
    return len(loaded.readable)


def test_unreadable_files_are_skipped_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"\0 no image")
    known = read_known_defects(tmp_path)
    assert load(known) == 1
    assert "1 of 2 known defective images skipped." in capsys.readouterr().err
    with pytest.raises(DataError, match=r"b\.png"):
        load(known, strict=True)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="None of the 1 known defective images can be read"):
        load(read_known_defects(tmp_path))


def test_another_bit_depth_is_refused_or_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 8)).astype(np.uint16)
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "a.png")
    known = read_known_defects(tmp_path)
    assert load(known, bit_depth=16) == 1
    with pytest.raises(DataError, match=r"a\.png has values up to 65,535; .* the run's bit depth 12"):
        load(known, bit_depth=12)
    with pytest.raises(DataError, match="the run's bit depth 8"):
        load(known)
    capsys.readouterr()
    image(tmp_path / "a.png", 0)
    load(read_known_defects(tmp_path), bit_depth=12)
    assert "1 of 1 known defective images of 'bolt' have 8 bits a channel" in " ".join(
        capsys.readouterr().err.split()
    )


def test_masks_that_do_not_belong_are_told_or_refused(tmp_path: Path) -> None:
    image(tmp_path / "crack/a.png", 1)
    image(tmp_path / "ground_truth/crack/z_mask.png", 2, mode="L")
    image(tmp_path / "ground_truth/dent/a_mask.png", 3, mode="L")
    known = read_known_defects(tmp_path)
    assert [one.mask_path for one in known.images] == [None]
    assert any("named like no image, z_mask.png among them" in note for note in known.notes)
    assert any("belong to no folder" in note and "dent/" in note for note in known.notes)

    image(tmp_path / "flat/a.png", 1)
    image(tmp_path / "flat/b_mask.png", 2, mode="L")
    (note,) = [note for note in read_known_defects(tmp_path / "flat").notes if "mask" in note]
    assert "1 masks" in note
    assert "b_mask.png" in note

    image(tmp_path / "other/a.png", 1)
    image(tmp_path / "other/a_mask.png", 2, size=(5, 5), mode="L")
    with pytest.raises(DataError, match="is 5 x 5 pixels, its image"):
        load_masks(read_known_defects(tmp_path / "other").images, image_size=32)
