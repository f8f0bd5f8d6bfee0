from __future__ import annotations

from pathlib import Path

import pytest

from client.judging.errors import ImageFileError
from client.pictures.folders import find_images
from tests.client.samples import save_image


def test_a_folder_is_searched_in_depth_and_sorted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.tiff", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    images = find_images([tmp_path]).images
    assert [str(image.name) for image in images] == ["a.jpg", "b.PNG", "deep/er/c.tiff"]
    assert [image.path for image in images] == [tmp_path / image.name for image in images]


def test_files_and_folders_keep_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    last, first = save_image(tmp_path / "z.png"), save_image(tmp_path / "folder" / "a.png")
    assert [image.path for image in find_images([last, first.parent]).images] == [last, first]


def test_a_file_that_is_given_is_taken_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "part.dat"
    file.touch()
    assert [image.path for image in find_images([file]).images] == [file]


def test_hidden_files_are_left_out_as_in_training(tmp_path: Path) -> None:
    save_image(tmp_path / "000.png")
    (tmp_path / "._000.png").write_bytes(b"what a Mac leaves on a memory stick")
    assert [image.name.name for image in find_images([tmp_path]).images] == ["000.png"]


@pytest.mark.parametrize(
    ("place", "defect"),
    [
        ("pill/test/good/000.png", "good"),
        ("pill/test/crack/000.png", "crack"),
        ("pill/train/good/000.png", None),
        ("pill/test/000.png", None),
        ("pill/test/crack/left/000.png", None),
        ("pill/000.png", None),
    ],
)
def test_the_defect_is_known_from_mvtecs_layout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, defect: str | None
) -> None:
    image = save_image(tmp_path / place)
    assert [file.defect for file in find_images([image]).images] == [defect]
    assert [file.defect for file in find_images([tmp_path]).images] == [defect]
    monkeypatch.chdir(image.parent)  # a relative path tells as much
    assert [file.defect for file in find_images([Path("000.png")]).images] == [defect]


def test_the_defect_of_a_linked_image_is_where_the_link_lies(tmp_path: Path) -> None:
    link = tmp_path / "pill/test/crack/000.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(save_image(tmp_path / "store/4711.png"))
    assert [image.defect for image in find_images([tmp_path / "pill"]).images] == ["crack"]


def test_images_of_the_same_name_from_two_folders_are_told_apart(tmp_path: Path) -> None:
    folders = [save_image(tmp_path / kind / "000.png").parent for kind in ("good", "crack")]
    assert [str(image.name) for image in find_images(folders).images] == ["good/000.png", "crack/000.png"]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError) as caught:
        find_images([save_image(tmp_path / "a.png"), tmp_path / "gone"])
    assert caught.value.message == f"{tmp_path / 'gone'} does not exist; give image files or folders of them."


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageFileError, match=rf"^Folder {tmp_path} holds no images \(\.png, .*\)\.$"):
        find_images([tmp_path])
