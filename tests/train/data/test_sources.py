"""How a category is found, and the real solar cells of ELPV."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

from train.data import sources
from train.data.category import CategoryData
from train.data.sources import MVTEC_AD_CATEGORIES, elpv, find_category
from train.data.sources.synthetic.dataset import render_category
from train.errors import DataError, StorageError


def write_good(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    return folder


def find(category: str, data: str, data_dir: Path) -> CategoryData:
    return find_category(category, data=data, data_dir=data_dir)


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    return find("mono", "auto", tmp_path_factory.mktemp("data"))


def test_mvtec_ad_has_its_fifteen_categories() -> None:
    assert len(set(MVTEC_AD_CATEGORIES)) == 15
    assert list(MVTEC_AD_CATEGORIES) == sorted(MVTEC_AD_CATEGORIES)


@pytest.fixture
def pill(tmp_path: Path) -> Path:
    """A category of MVTec AD with one image of each kind."""
    root = tmp_path / "mvtec_ad/pill"
    for folder in ("train/good", "test/good", "test/crack"):
        write_good(root / folder)
    write_good(root / "ground_truth/crack").joinpath("a.png").rename(root / "ground_truth/crack/a_mask.png")
    return root


@pytest.mark.parametrize("data", ["auto", "mvtec_ad"])
def test_the_users_mvtec_ad_comes_first(data: str, tmp_path: Path, pill: Path) -> None:
    files = find("pill", data, tmp_path)
    assert (files.dataset, files.category, files.root) == ("mvtec_ad", "pill", pill)
    assert [(image.defect, image.mask_path is not None) for image in files.test] == [
        ("crack", True),
        ("good", False),
    ]


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        ("test/good", "test/ holds crack, not good and defective images"),
        ("test/crack", "test/ holds good, not good and defective images"),
        ("test", "test/ holds nothing, not good and defective images"),
        ("ground_truth", "1 test images have no mask in ground_truth/, crack/a.png among them"),
    ],
)
def test_an_incomplete_mvtec_ad_is_refused(pill: Path, tmp_path: Path, missing: str, fault: str) -> None:
    shutil.rmtree(pill / missing)
    with pytest.raises(DataError) as caught:
        find("pill", "auto", tmp_path)
    assert fault in caught.value.message
    assert "unpack it again, or give it as a folder of your own with --data" in caught.value.message


def test_mvtec_ad_without_good_images_to_train_on_is_refused(pill: Path, tmp_path: Path) -> None:
    shutil.rmtree(pill / "train")
    with pytest.raises(DataError, match="has no good images"):
        find("pill", "auto", tmp_path)
    write_good(pill)
    with pytest.raises(DataError, match="train/good is missing"):
        find("pill", "auto", tmp_path)


def test_mvtec_ad_that_is_not_there_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mvtec_ad/pill does not exist; unpack your copy .*--data synthetic"):
        find("pill", "mvtec_ad", tmp_path)


@pytest.mark.parametrize(("category", "data"), [("pill", "auto"), ("bolt", "synthetic")])
def test_synthetic_is_made_where_nothing_real_is(
    category: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def render(root: Path, *, category: str) -> Path:
        asked.append(category)
        return write_good(root / category / "train/good").parents[1]

    monkeypatch.setattr(sources, "render_category", render)
    files = find(category, data, tmp_path)
    assert files.synthetic
    assert (files.root, asked) == (tmp_path / "synthetic" / category, [category])


@pytest.mark.parametrize(
    ("data", "where", "known"),
    [("auto", "MVTec AD or ELPV", "zipper, mono, poly"), ("mvtec_ad", "MVTec AD", "zipper"), ("elpv", "ELPV", "mono")],
)  # fmt: skip
def test_an_unknown_category_lists_the_known_ones(data: str, where: str, known: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"Unknown category 'pil' in {where}; known are .*{known}"):
        find("pil", data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_own_folder_plain_nested_or_unknown(tmp_path: Path) -> None:
    write_good(tmp_path / "plain")
    write_good(tmp_path / "many/bolt/train/good")
    write_good(tmp_path / "many/nut/train/good")
    plain = find("bolt", str(tmp_path / "plain"), tmp_path)
    assert (plain.dataset, plain.category, plain.root) == ("folder", "bolt", tmp_path / "plain")
    nested = find("nut", str(tmp_path / "many"), tmp_path)
    assert (nested.category, nested.root) == ("nut", tmp_path / "many/nut")
    with pytest.raises(DataError, match=r"Unknown category 'gear' in .*many; it holds bolt, nut\."):
        find("gear", str(tmp_path / "many"), tmp_path)


def test_rendered_images_stay_synthetic_whichever_way_they_are_given(tmp_path: Path) -> None:
    root = render_category(tmp_path, category="bolt", image_size=32, n_train=1, n_test_good=1, n_per_defect=1)
    for folder in (tmp_path, root):
        files = find("bolt", str(folder), tmp_path)
        assert (files.dataset, files.synthetic, files.root) == ("synthetic", True, root)


def test_a_folder_that_is_none_lists_the_data_sets(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"--data .*none is neither a folder nor a data set; .*mvtec_ad, elpv"
    ):
        find("bolt", str(tmp_path / "none"), tmp_path)


def test_elpv_mono_counts(mono: CategoryData) -> None:
    defects = [image.defect for image in mono.test]
    assert (mono.dataset, len(mono.train_good)) == ("elpv", 412)  # 70 % of 588 good cells
    assert (defects.count("good"), defects.count("defective"), len(defects)) == (176, 313, 489)


def test_elpv_puts_each_cell_where_its_label_says(mono: CategoryData) -> None:
    package = Path(importlib.util.find_spec("elpv_dataset").origin).parent / "data"  # type: ignore[union-attr, arg-type]
    rows = [line.split() for line in (package / "labels.csv").read_text().splitlines()]
    probability = {Path(path).name: float(value) for path, value, kind in rows if kind == "mono"}
    good = [path.name for path in mono.train_good]
    good += [image.path.name for image in mono.test if image.defect == "good"]
    defective = [image.path.name for image in mono.test if image.defect == "defective"]
    assert sorted(good) == sorted(name for name, value in probability.items() if value == 0)
    assert sorted(defective) == sorted(name for name, value in probability.items() if value == 1)
    some = mono.train_good[0]
    assert some.read_bytes() == (package / "images" / some.name).read_bytes()


def test_elpv_split_is_the_same_everywhere_and_the_licence_is_shown(
    mono: CategoryData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = find("mono", "elpv", tmp_path)
    assert again.fingerprint() == mono.fingerprint()
    assert again.test_fingerprint() == mono.test_fingerprint()
    assert "CC BY-NC-SA 4.0" in capsys.readouterr().err
    assert "CC BY-NC-SA 4.0" in (again.root / "LICENCE.txt").read_text()
    assert [path.name for path in again.root.parent.iterdir()] == ["mono"]
    find("mono", "elpv", tmp_path)
    assert capsys.readouterr().err == ""  # laid out once


def test_elpv_without_its_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install elpv-dataset"):
        find("mono", "elpv", tmp_path)


def test_elpv_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(elpv.shutil, "copyfile", fail)
    with pytest.raises(StorageError, match="disk full"):
        find("mono", "elpv", tmp_path)
    assert list((tmp_path / "elpv").iterdir()) == []
