"""Where pictures may lie, and how they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.core.errors import ClientError
from client.files import StorageError
from client.pictures.folders import find_images
from client.predictions.drawing import picture_paths, require_folder_for_pictures
from tests.client.samples import save_image


@pytest.mark.parametrize("place", ["lot", "lot/overlays", "link/overlays"])
def test_pictures_do_not_mix_with_the_images(tmp_path: Path, place: str) -> None:
    lot = save_image(tmp_path / "lot" / "a.png").parent
    (tmp_path / "link").symlink_to(lot, target_is_directory=True)
    with pytest.raises(
        ClientError, match="whose images are judged, and the next run would judge the pictures too"
    ):
        require_folder_for_pictures(tmp_path / place, judged=[lot])


def test_a_picture_replaces_no_image(tmp_path: Path) -> None:
    image = save_image(tmp_path / "lot" / "a.png")
    with pytest.raises(ClientError, match=r"holds .*a\.png, which a picture could replace"):
        require_folder_for_pictures(image.parent, judged=[image])
    require_folder_for_pictures(image.parent / "overlays", judged=[image])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    with pytest.raises(StorageError, match=r"a\.png is a file; give a folder"):
        require_folder_for_pictures(image, judged=[tmp_path / "lot"])


def test_every_image_has_a_picture_of_its_own(tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    for name in ("a.jpg", "a.jpg.png", "a.png", "ü" * 125 + ".jpg"):
        save_image(lot / name)
    images = find_images([lot]).images
    paths = picture_paths(images, tmp_path / "overlays")
    assert len(set(paths.values())) == len(images) == 4
    for path in paths.values():
        assert path.suffix == ".png"
        assert len(os.fsencode(path.name)) <= 255
