"""The rendered data set: its layout, its determinism, its masks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from train.data.sources.synthetic import dataset
from train.data.sources.synthetic.dataset import DEFECTS, MARKER, VERSION, render_category
from train.data.sources.synthetic.defects import render
from train.data.sources.synthetic.designs import design_part, generator
from train.errors import DataError, StorageError

SIZE = 64


def small_set(
    root: Path, category: str = "pill", seed: int = 0, n_train: int = 3, n_per_defect: int = 1
) -> Path:
    return render_category(
        root,
        category=category,
        seed=seed,
        image_size=SIZE,
        n_train=n_train,
        n_test_good=2,
        n_per_defect=n_per_defect,
    )


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.png"))
    }


def pair(category: str, defect: str, index: int, size: int) -> tuple[NDArray, NDArray, NDArray]:
    """The same part photographed good and with a defect, and the defect's mask."""
    design, name = design_part(category, seed=0), f"{category}/{defect}/{index}"
    good, _ = render(design, generator(0, name), image_size=size)
    damaged, mask = render(design, generator(0, name), image_size=size, defect=defect)
    return good, damaged, mask


@pytest.fixture(scope="module")
def pill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("synthetic"))


def test_layout_and_counts(pill: Path) -> None:
    expected = {f"train/good/{i:03d}.png" for i in range(3)} | {f"test/good/{i:03d}.png" for i in range(2)}
    for defect in DEFECTS:
        expected |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
    assert set(digests(pill)) == expected
    assert [path.name for path in pill.parent.iterdir()] == ["pill"]  # the staging folder is gone


def test_images_are_rgb_and_masks_are_black_and_white(pill: Path) -> None:
    for path in pill.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (SIZE, SIZE)
            is_mask = path.name.endswith("_mask.png")
            assert image.mode == ("L" if is_mask else "RGB")
            if is_mask:
                assert set(np.unique(np.asarray(image))) == {0, 255}


def test_at_least_five_defects() -> None:
    assert len(set(DEFECTS)) >= 5


def test_marker_says_that_the_images_are_synthetic(pill: Path) -> None:
    marker = json.loads((pill / MARKER).read_text())
    assert marker["synthetic"] is True
    assert marker["settings"] == {
        "version": VERSION,
        "category": "pill",
        "seed": 0,
        "image_size": SIZE,
        "n_train": 3,
        "n_test_good": 2,
        "n_per_defect": 1,
    }


def test_same_arguments_give_the_same_bytes(pill: Path, tmp_path: Path) -> None:
    assert digests(small_set(tmp_path)) == digests(pill)


def test_other_seed_and_other_name_give_other_images(pill: Path, tmp_path: Path) -> None:
    ours = set(digests(pill).values())
    assert ours.isdisjoint(digests(small_set(tmp_path / "seed", seed=1)).values())
    assert ours.isdisjoint(digests(small_set(tmp_path / "name", category="bracket")).values())


def test_no_two_images_are_the_same(pill: Path) -> None:
    assert len(set(digests(pill).values())) == len(digests(pill))


def test_counts_do_not_change_the_other_images(pill: Path, tmp_path: Path) -> None:
    larger = digests(small_set(tmp_path, n_train=5, n_per_defect=2))
    assert digests(pill).items() <= larger.items()
    assert len(larger) == len(digests(pill)) + 2 + 2 * len(DEFECTS)


@pytest.mark.parametrize("category", ["pill", "metal_nut", "transistor"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_mask_is_exactly_what_the_defect_changed(category: str, defect: str) -> None:
    good, damaged, mask = pair(category, defect, index=0, size=96)
    assert good.shape == damaged.shape == (96, 96, 3)
    assert mask.shape == (96, 96)
    change = abs(good.astype(int) - damaged).max(axis=2)
    assert mask.any()
    assert change[~mask].max() == 0
    assert change[mask].min() >= 8
    assert change[mask].mean() >= 20


def test_defects_are_small_and_large() -> None:
    areas = [pair("pill", defect, i, SIZE)[2].mean() for defect in DEFECTS for i in range(6)]
    assert min(areas) < 0.01
    assert max(areas) > 0.05
    assert max(areas) < 0.3


def test_second_call_does_nothing(tmp_path: Path) -> None:
    target = small_set(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert small_set(tmp_path) == target
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == written


def test_other_settings_replace_what_we_rendered(tmp_path: Path) -> None:
    small_set(tmp_path, n_train=3)
    target = small_set(tmp_path, n_train=1)
    assert [path.name for path in (target / "train/good").iterdir()] == ["000.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["pill"]


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    photo = tmp_path / "pill/train/good/mine.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"pill exists without synthetic\.json.*move it away"):
        small_set(tmp_path)
    assert photo.read_bytes() == b"mine"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "render", fail)
    with pytest.raises(StorageError, match="disk full"):
        small_set(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "category", ["", ".", "..", "../pill", "a/b", "a\\b", ".pill", "pill\n", "-rf", "pi ll"]
)
def test_unsafe_name_is_refused(category: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no safe folder name; expected letters.*rename it"):
        small_set(tmp_path / "data", category=category)
    assert list(tmp_path.iterdir()) == []


def test_too_small_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Image size 16 is too small"):
        render_category(tmp_path, category="pill", image_size=16)


@pytest.mark.parametrize("size", [(32, 96), (96, 64)])
def test_a_part_keeps_its_shape_in_pictures_of_any(tmp_path: Path, size: tuple[int, int]) -> None:
    root = render_category(
        tmp_path, category="pill", image_size=size, n_train=1, n_test_good=1, n_per_defect=1
    )
    pixels = np.asarray(Image.open(root / "train" / "good" / "000.png")).astype(int)
    assert pixels.shape == (*size, 3)
    mask = np.asarray(Image.open(root / "ground_truth" / "broken_edge" / "000_mask.png"))
    assert mask.shape == size
    assert mask.any()
    before = digests(root)
    assert render_category(
        tmp_path, category="pill", image_size=size, n_train=1, n_test_good=1, n_per_defect=1
    )
    assert digests(root) == before  # the marker names the same size: nothing is rendered again
