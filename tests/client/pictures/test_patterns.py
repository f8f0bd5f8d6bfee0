"""Patterns that no shell has expanded: quoted ones, and those of Windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.core.errors import ImageFileError
from client.pictures.folders import find_images
from tests.client.samples import save_image


@pytest.fixture
def lot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`lot` in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "a.tif", "left/a.png", "left/deep/a.png", "right/b.png", ".old/a.png"):
        save_image(Path("lot") / name)
    Path("lot/notes.txt").touch()
    return Path("lot")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("lot/*.png", ["a.png", "b.png"]),
        ("lot/?.tif", ["a.tif"]),
        ("lot/[!a].png", ["b.png"]),
        ("lot/*/a.png", ["left/a.png"]),
        ("lot/**/a.png", ["a.png", "left/a.png", "left/deep/a.png"]),
        ("lot/**/deep/*", ["left/deep/a.png"]),
        ("lot/l*", ["left/a.png", "left/deep/a.png"]),
        ("lot/*", ["a.png", "a.tif", "b.png", "left/a.png", "left/deep/a.png", "right/b.png"]),
        ("lot/**", ["a.png", "a.tif", "b.png", "left/a.png", "left/deep/a.png", "right/b.png"]),
        ("lot/**/*", ["a.png", "a.tif", "b.png", "left/a.png", "left/deep/a.png", "right/b.png"]),
        ("**/lef*/a.png", ["lot/left/a.png"]),
        ("lot/.o*/*.png", []),  # hidden, and said to be
    ],
)
def test_a_pattern_fits_as_in_a_shell(lot: Path, pattern: str, found: list[str]) -> None:
    if not found:
        with pytest.raises(ImageFileError, match=r"fits no image .*lot/\.old is hidden"):
            find_images([Path(pattern)])
        return
    judged = find_images([Path(pattern)])
    assert [str(image.name) for image in judged.images] == found
    assert not any("twice" in str(left_out) for left_out in judged.left_out)


def test_what_a_pattern_fits_is_taken_as_from_a_folder(lot: Path) -> None:
    (lot / "part.gif").touch()
    (lot / "gone.png").symlink_to("nowhere.png")
    left_out = {str(entry): entry.may_be_part for entry in find_images([Path("lot/*")]).left_out}
    assert left_out.pop("lot/notes.txt is no image") is False
    assert left_out.pop("lot/gone.png is a link to nothing") is True
    assert [text.startswith("lot/part.gif has the ending '.gif'") for text in left_out] == [True]


def test_masks_are_no_parts_and_links_in_a_circle_end(tmp_path: Path) -> None:
    for name in ("train/good/0.png", "test/dent/1.png", "ground_truth/dent/1_mask.png"):
        save_image(tmp_path / "pill" / name)
    (tmp_path / "pill" / "test" / "again").symlink_to(tmp_path / "pill", target_is_directory=True)
    judged = find_images([tmp_path / "pill" / "**" / "*.png"])
    assert [str(image.name) for image in judged.images] == ["test/dent/1.png", "train/good/0.png"]
    assert [image.defect for image in judged.images] == ["dent", None]
    assert "holds ground truth masks, not parts" in str(judged.left_out[0])


def test_a_name_with_special_characters_is_itself(tmp_path: Path) -> None:
    for name in ("part[1].png", "part1.png"):
        save_image(tmp_path / name)
    found = find_images([tmp_path / "part[1].png"]).images
    assert [image.path.name for image in found] == ["part[1].png"]
    for name in ("lot [a]/0.png", "lot [a]/deep/[b]/1.png"):
        save_image(tmp_path / name)
    for pattern, n_found in (("lot [a]/*.png", 1), ("l* [[]a]/**/*.png", 2), ("lot [a]/*/[b]/?.png", 1)):
        assert len(find_images([tmp_path / pattern]).images) == n_found


@pytest.mark.parametrize("pattern", ["lot/*.jpg", "nowhere/*.png", "lot/[", "lot/**/none*"])
def test_a_pattern_that_fits_nothing_is_named(lot: Path, pattern: str) -> None:
    with pytest.raises(ImageFileError, match="fits no image"):
        find_images([Path(pattern)])


def test_notes_among_what_a_shell_expanded_are_left_out(lot: Path) -> None:
    """`predict lot/*`, where the shell gives every name."""
    judged = find_images(sorted(path for path in lot.iterdir() if not path.name.startswith(".")))
    assert len(judged.images) == 6
    assert [str(entry) for entry in judged.left_out] == ["lot/notes.txt is no image"]
    with pytest.raises(
        ImageFileError, match=r"Nothing that was given is an image; left out: \(lot/notes\.txt"
    ):
        find_images([lot / "notes.txt"])
