from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from client.core.errors import ImageFileError
from client.pictures.folders import FoundImages, find_images
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


@pytest.mark.parametrize("name", ["good", "Good", "OK", "normal"])
def test_good_images_are_good_whatever_their_folder_is_called(tmp_path: Path, name: str) -> None:
    save_image(tmp_path / "pill" / "Test" / name / "000.png")
    assert [image.defect for image in find_images([tmp_path]).images] == ["good"]


@pytest.mark.parametrize("beside", ["test/OK", "Train"])
def test_sub_folders_of_a_test_set_belong_to_its_kinds(tmp_path: Path, beside: str) -> None:
    """A folder that happens to be called `test` does not make `/home/me/test/photos/lot/` a defect kind."""
    image = save_image(tmp_path / "test" / "crack" / "left" / "000.png")
    assert [file.defect for file in find_images([image]).images] == [None]
    (tmp_path / beside).mkdir()
    assert [file.defect for file in find_images([image]).images] == ["crack"]


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


def reasons(found: FoundImages, *, may_be_part: bool) -> dict[str, str]:
    """What was left out, by the file's or folder's name."""
    chosen = [entry for entry in found.left_out if entry.may_be_part == may_be_part]
    return {entry.path.name: entry.reason for entry in chosen}


def test_linked_folders_are_searched(tmp_path: Path) -> None:
    save_image(tmp_path / "lot" / "a.png")
    save_image(tmp_path / "store" / "deep" / "b.png")
    (tmp_path / "lot" / "more").symlink_to(tmp_path / "store", target_is_directory=True)
    found = find_images([tmp_path / "lot"])
    assert [str(image.name) for image in found.images] == ["a.png", "more/deep/b.png"]
    assert found.left_out == []


def test_a_linked_folder_of_the_test_set_tells_the_defect(tmp_path: Path) -> None:
    """As `train evaluate` reads it."""
    save_image(tmp_path / "store" / "4711" / "a.png")
    (tmp_path / "pill" / "test").mkdir(parents=True)
    (tmp_path / "pill" / "test" / "crack").symlink_to(tmp_path / "store" / "4711", target_is_directory=True)
    assert [image.defect for image in find_images([tmp_path / "pill"]).images] == ["crack"]
    (tmp_path / "current").symlink_to(tmp_path / "pill" / "test" / "crack", target_is_directory=True)
    save_image(tmp_path / "pill" / "test" / "good" / "b.png")
    (tmp_path / "latest").symlink_to(tmp_path / "pill" / "test" / "good", target_is_directory=True)
    assert [image.defect for image in find_images([tmp_path / "latest"]).images] == ["good"]


def test_links_in_a_circle_end_and_a_folder_is_judged_once(tmp_path: Path) -> None:
    save_image(tmp_path / "lot" / "left" / "a.png")
    (tmp_path / "lot" / "left" / "up").symlink_to(tmp_path / "lot", target_is_directory=True)
    (tmp_path / "lot" / "again").symlink_to(tmp_path / "lot" / "left", target_is_directory=True)
    found = find_images([tmp_path / "lot", tmp_path / "lot" / "left" / "a.png", tmp_path / "lot"])
    assert [str(image.name) for image in found.images] == ["left/a.png"]
    assert reasons(found, may_be_part=True) == {}
    assert set(reasons(found, may_be_part=False)) == {"up", "again", "a.png", "lot"}


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "open" / "a.png")
    save_image(tmp_path / "shut" / "b.png")
    scan = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images([tmp_path])
    assert [image.name.name for image in found.images] == ["a.png"]
    assert reasons(found, may_be_part=True) == {"shut": "cannot be read (Permission denied)"}
    with pytest.raises(
        ImageFileError, match=r"holds no images .*shut cannot be read \(Permission denied\)\)\.$"
    ):
        find_images([tmp_path / "shut"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png")
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("b.png"))
    found = find_images([tmp_path])
    assert [image.name.name for image in found.images] == ["a.png"]
    assert reasons(found, may_be_part=True) == {"b.png": "cannot be read (Permission denied)"}


def test_what_may_be_a_part_is_told_from_what_is_none(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    for name in ("b.gif", "c", "d.png.part", ".e.png", ".lot/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("labels.json", "Thumbs.db", "README", "readme.png", ".DS_Store", "._a.png", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    save_image(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = find_images([tmp_path])
    assert [image.name.name for image in found.images] == ["a.png", "readme.png"]
    parts = reasons(found, may_be_part=True)
    assert set(parts) == {
        "b.gif", "c", "d.png.part", ".e.png", ".lot", "gone.png", "gone", "circle.png", "pipe.png",
    }  # fmt: skip
    assert parts["gone.png"] == parts["gone"] == "is a link to nothing"
    assert parts["pipe.png"] == "is no regular file"
    assert parts["b.gif"].startswith("has the ending '.gif'; expected one of .png")
    assert set(reasons(found, may_be_part=False)) == {
        "labels.json", "Thumbs.db", "README", ".DS_Store", "._a.png", ".git", ".ipynb_checkpoints",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ground_truth", "Ground Truth", "GroundTruth"])
def test_masks_of_mvtecs_layout_are_no_parts(tmp_path: Path, name: str) -> None:
    save_image(tmp_path / "pill" / "test" / "crack" / "000.png")
    mask = save_image(tmp_path / "pill" / name / "crack" / "000_mask.png")
    found = find_images([tmp_path])
    assert [str(image.name) for image in found.images] == ["pill/test/crack/000.png"]
    assert reasons(found, may_be_part=False) == {name: "holds ground truth masks, not parts"}
    for path in (mask, mask.parent, mask.parent.parent):
        with pytest.raises(
            ImageFileError, match=f"which holds ground truth masks and no parts; .*{tmp_path}/pill/test"
        ):
            find_images([path])


def test_links_to_masks_are_no_parts(tmp_path: Path) -> None:
    save_image(tmp_path / "pill" / "test" / "crack" / "000.png")
    masks = save_image(tmp_path / "pill" / "ground_truth" / "crack" / "000_mask.png").parent
    save_image(tmp_path / "lot" / "a.png")
    (tmp_path / "lot" / "link").symlink_to(masks, target_is_directory=True)
    found = find_images([tmp_path / "lot"])
    assert [str(image.name) for image in found.images] == ["a.png"]
    assert reasons(found, may_be_part=False) == {"link": "holds ground truth masks, not parts"}
    with pytest.raises(ImageFileError, match="ground truth masks and no parts"):
        find_images([tmp_path / "lot" / "link"])


def test_a_folder_of_that_name_alone_is_judged(tmp_path: Path) -> None:
    save_image(tmp_path / "ground_truth" / "000.png")
    assert len(find_images([tmp_path]).images) == 1


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "n" * 300])
def test_a_name_that_is_too_long_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageFileError, match=r"n cannot be read|png cannot be read"):
        find_images([tmp_path / name])


def test_an_argument_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageFileError, match=r"a\.png cannot be read \(it is a link to nothing\)"):
        find_images([tmp_path / "a.png"])


def test_file_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"f\xfcr.png")
    save_image(tmp_path / "a.png").rename(path)
    assert [image.path for image in find_images([tmp_path]).images] == [path]


def test_what_was_left_out_is_named_where_nothing_is_left(tmp_path: Path) -> None:
    for name in ("a.gif", "b.gif", "c.gif", "d.gif"):
        (tmp_path / name).touch()
    with pytest.raises(ImageFileError) as caught:
        find_images([tmp_path])
    assert "left out: (" in caught.value.message
    assert caught.value.message.endswith("and 1 more).")
