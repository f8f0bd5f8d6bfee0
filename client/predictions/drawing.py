"""Pictures of verdicts as files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from client.core.errors import ClientError
from client.files import replace_file, require_writable_folder
from client.pictures.folders import ImageFile

MAX_NAME_BYTES = 255  # of a file, on nearly every file system
STEM_KEPT = 40  # characters of a longer name


def require_folder_for_pictures(folder: Path, *, judged: Sequence[Path]) -> None:
    """Make sure that pictures can be written into a folder and do not mix with the images.

    Args:
        folder: for the pictures; it need not exist.
        judged: the files and folders whose images are judged.

    Raises:
        StorageError: nothing can be written there.
        ClientError: it lies in a folder that is searched for images: a picture could replace an image, and the next
            run would judge the pictures.
    """
    require_writable_folder(folder)
    place = Path(os.path.realpath(folder))
    for path in judged:
        searched = Path(os.path.realpath(path))
        if path.is_dir() and (place == searched or searched in place.parents):
            raise ClientError(
                f"{folder} lies in {path}, whose images are judged, and the next run would judge the pictures too; "
                "choose a folder outside."
            )
        if place == searched.parent:
            raise ClientError(f"{folder} holds {path}, which a picture could replace; choose another folder.")


def picture_paths(images: Sequence[ImageFile], folder: Path) -> dict[Path, Path]:
    """Where the picture of each image goes, by the image's path: named as the image, a `.png` each."""
    paths: dict[Path, Path] = {}
    taken: set[Path] = set()
    for image in images:
        name = image.name if image.name.suffix == ".png" else image.name.with_name(f"{image.name.name}.png")
        if name in taken or len(os.fsencode(name.name)) > MAX_NAME_BYTES:
            digest = hashlib.sha256(os.fsencode(image.name)).hexdigest()[:12]
            name = image.name.with_name(f"{image.name.stem[:STEM_KEPT]}.{digest}.png")
        taken.add(name)
        paths[image.path] = folder / name
    return paths


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture into a PNG that is written whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    replace_file(path, lambda temporary: picture.save(temporary, format="PNG"))
