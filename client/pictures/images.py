"""Find image files, and read them with the very code that the server decodes with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from client.judging.errors import ImageFileError
from model_repository.image_decoder.image_decoding import SUFFIXES, ImageError, read_image


@dataclass(frozen=True)
class ImageFile:
    """An image to ask about.

    Attributes:
        path: the file.
        name: for reports, its path relative to the given folder; or, where several images would have the same name,
            relative to the folder that all images share.
        defect: in MVTec AD's layout (test/<defect>/), what it really is; else None.
    """

    path: Path
    name: Path
    defect: str | None


def find_images(paths: Sequence[Path]) -> list[ImageFile]:
    """All images among files and folders (searched in depth), sorted within a folder, hidden ones left out.

    Raises:
        ImageFileError: a path that does not exist, or a folder without images.
    """
    images = []
    for path in paths:
        if path.is_file():
            images.append(_image_file(path, Path(path.name)))
        elif path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
            )
            if not files:
                raise ImageFileError(f"Folder {path} holds no images ({', '.join(SUFFIXES)}).")
            images += [_image_file(file, file.relative_to(path)) for file in files]
        else:
            raise ImageFileError(f"{path} does not exist; give image files or folders of them.")
    return _uniquely_named(images)


def load_image(path: str | Path, *, bit_depth: int = 8) -> Image.Image:
    """Read an image file as upright 8-bit RGB.

    Args:
        path: the file.
        bit_depth: that of the category, `JudgeClient.bit_depth`; it counts for files with more than 8 bits a channel.

    Raises:
        ImageFileError: not an image, truncated, brighter than the bit depth allows, or it cannot be read.
    """
    try:
        return read_image(Path(path), bit_depth=bit_depth)
    except ImageError as error:
        raise ImageFileError(f"{error}.") from None


def _image_file(path: Path, name: Path) -> ImageFile:
    folder = path.parent.resolve()  # of the link, where the image is one
    return ImageFile(path=path, name=name, defect=folder.name if folder.parent.name == "test" else None)


def _uniquely_named(images: list[ImageFile]) -> list[ImageFile]:
    if len({image.name for image in images}) == len(images):
        return images
    places = [image.path.parent.resolve() for image in images]
    shared = os.path.commonpath(places)
    return [
        replace(image, name=place.relative_to(shared) / image.path.name)
        for image, place in zip(images, places, strict=True)
    ]
