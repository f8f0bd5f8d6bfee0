from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from client.judging.errors import ImageFileError
from client.pictures.images import find_images, load_image
from tests.client.samples import save_image


def test_a_folder_is_searched_in_depth_and_sorted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.tiff", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    images = find_images([tmp_path])
    assert [str(image.name) for image in images] == ["a.jpg", "b.PNG", "deep/er/c.tiff"]
    assert [image.path for image in images] == [tmp_path / image.name for image in images]


def test_files_and_folders_keep_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    last, first = save_image(tmp_path / "z.png"), save_image(tmp_path / "folder" / "a.png")
    assert [image.path for image in find_images([last, first.parent])] == [last, first]


def test_a_file_that_is_given_is_taken_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "part.dat"
    file.touch()
    assert [image.path for image in find_images([file])] == [file]


def test_hidden_files_are_left_out_as_in_training(tmp_path: Path) -> None:
    save_image(tmp_path / "000.png")
    (tmp_path / "._000.png").write_bytes(b"what a Mac leaves on a memory stick")
    assert [image.name.name for image in find_images([tmp_path])] == ["000.png"]


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
    assert [file.defect for file in find_images([image])] == [defect]
    assert [file.defect for file in find_images([tmp_path])] == [defect]
    monkeypatch.chdir(image.parent)  # a relative path tells as much
    assert [file.defect for file in find_images([Path("000.png")])] == [defect]


def test_the_defect_of_a_linked_image_is_where_the_link_lies(tmp_path: Path) -> None:
    link = tmp_path / "pill/test/crack/000.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(save_image(tmp_path / "store/4711.png"))
    assert [image.defect for image in find_images([tmp_path / "pill"])] == ["crack"]


def test_images_of_the_same_name_from_two_folders_are_told_apart(tmp_path: Path) -> None:
    folders = [save_image(tmp_path / kind / "000.png").parent for kind in ("good", "crack")]
    assert [str(image.name) for image in find_images(folders)] == ["good/000.png", "crack/000.png"]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError) as caught:
        find_images([save_image(tmp_path / "a.png"), tmp_path / "gone"])
    assert caught.value.message == f"{tmp_path / 'gone'} does not exist; give image files or folders of them."


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageFileError, match=rf"^Folder {tmp_path} holds no images \(\.png, .*\)\.$"):
        find_images([tmp_path])


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("part.tiff" if mode in ("CMYK", "I;16") else "part.png")
    Image.new(mode, (7, 5)).save(path)
    image = load_image(str(path))
    assert (image.mode, image.size) == ("RGB", (7, 5))


def test_deep_pictures_are_read_with_the_categorys_bit_depth(tmp_path: Path) -> None:
    path = tmp_path / "part.tiff"
    Image.new("I;16", (7, 5), 2056).save(path)
    assert load_image(path, bit_depth=12).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ImageFileError, match=r"has uint16 values up to 2,056; expected at most 255, .*\.$"):
        load_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no image", "is not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "is not an image of a known format"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_image_is_named_in_one_sentence(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "part.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFileError) as caught:
        load_image(path)
    message = caught.value.message
    assert message.startswith(f"{path} {reason}")
    assert message.endswith(".")
    assert not message.endswith("..")


@pytest.mark.parametrize("name", ["part.png", "part.jpg", "part.bmp", "part.tiff", "part.webp"])
def test_a_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageFileError, match=rf"^{path} is "):
        load_image(path)
