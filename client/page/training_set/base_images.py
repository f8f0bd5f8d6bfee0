"""The images that a category was trained on so far, as they lie in a folder of MVTec AD's layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from client.core.errors import ClientError
from client.pictures.layout import GOOD_NAMES, MASKS, TEST, TRAIN
from model_repository.image_decoder.image_decoding import SUFFIXES

TRAIN_GOOD, TEST_GOOD = PurePosixPath("train/good"), PurePosixPath("test/good")
GROUND_TRUTH = "ground_truth"
# Of Windows, macOS and a NAS, in any case, beside names that start with a dot.
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
RENDERED = "synthetic.json"  # says that a folder's images were rendered, which whatever is made of them has to say too
EXPECTED = "expected train/good/, test/good/ and test/<defect>/, or a folder of good images"


@dataclass(frozen=True)
class BaseImages:
    """What a folder of images comes to.

    Attributes:
        files: each image and mask, by its place in MVTec AD's layout.
        n_left_out: images whose place in the layout nobody knows.
        rendered: the file that says that the images were rendered; None where they were taken.
    """

    files: dict[PurePosixPath, Path]
    n_left_out: int = 0
    rendered: Path | None = None


def find_base(base: Path, category: str) -> BaseImages:
    """The images of a category's data folder, or of the folder that holds the folders of several.

    It is read as training reads it: `ok` and `normal` are other names of `good`, and a folder without train/ and good/
    holds good images. What training leaves out is left out.

    Raises:
        ClientError: there is no such folder, it cannot be read, or it holds no good images to train on.
    """
    if (base / category).is_dir():
        base = base / category
    if not base.is_dir():
        raise ClientError(f"{base}, the data set that marks are added to, is no folder; {EXPECTED}.")
    try:
        names = _folder_names(base)
    except OSError as error:
        raise _unreadable(error) from None
    files: dict[PurePosixPath, Path] = {}
    n_left_out = 0
    for path in _images(base):
        place = _place(path.relative_to(base), names)
        if place is None:
            n_left_out += 1
        elif place in files:
            raise ClientError(
                f"{files[place]} and {path} are both {place} in MVTec AD's layout; rename one of them."
            )
        else:
            files[place] = path
    if not any(place.is_relative_to(TRAIN_GOOD) for place in files):
        raise ClientError(
            f"{base}, the data set that marks are added to, holds no good images to train on; {EXPECTED}."
        )
    rendered = base / RENDERED
    return BaseImages(files, n_left_out, rendered if rendered.is_file() else None)


def list_files(folder: Path) -> list[PurePosixPath]:
    """The images and masks of a folder that is in the layout already.

    Raises:
        ClientError: it cannot be read.
    """
    return [PurePosixPath(path.relative_to(folder)) for path in _images(folder)]


def is_good(place: PurePosixPath) -> bool:
    """Whether the layout says of an image at a place that its part is good."""
    return place.is_relative_to(TRAIN_GOOD) or place.is_relative_to(TEST_GOOD)


def mask_places(place: PurePosixPath) -> tuple[PurePosixPath, ...]:
    """Where the mask of a defective test image may lie, MVTec AD's own place first."""
    kind = PurePosixPath(GROUND_TRUTH, *place.parts[1:])
    stems = (f"{kind.stem}_mask", kind.stem)
    return tuple(kind.with_name(stem + suffix) for stem in stems for suffix in SUFFIXES)


def _folder_names(base: Path) -> set[str]:
    folders = [path for path in base.iterdir() if path.is_dir()]
    good = [path for path in base.glob("*/*") if path.parent.name.lower() == TRAIN and path.is_dir()]
    inner = {f"{TRAIN}/" for path in good if path.name.lower() in GOOD_NAMES}
    return {path.name.lower() for path in folders} | inner


def _images(base: Path) -> Iterator[Path]:
    """The image files of a folder and those in it, links followed, each folder once."""

    def stop(error: OSError) -> None:
        raise _unreadable(error)

    visited: set[str] = set()
    for current, folders, files in os.walk(base, onerror=stop, followlinks=True):
        place = Path(current)
        visited.add(os.path.realpath(current))
        folders[:] = sorted(
            name
            for name in folders
            if not _is_clutter(name) and os.path.realpath(place / name) not in visited
        )
        for name in sorted(files):
            path = place / name
            if path.suffix.lower() in SUFFIXES and not _is_clutter(name) and path.is_file():
                yield path


def _unreadable(error: OSError) -> ClientError:
    return ClientError(f"{error.filename} cannot be read ({error.strerror}); make it readable for this user.")


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _place(relative: Path, names: set[str]) -> PurePosixPath | None:
    """Where an image of a data folder belongs; None where the layout has no place for it.

    Args:
        relative: its path in the folder.
        names: of the folders straight in it, in lower case; and `train/` where that holds a folder of good images.
    """
    first, rest = relative.parts[0].lower(), relative.parts[1:]
    if first == TRAIN and rest:
        if rest[0].lower() in GOOD_NAMES and rest[1:]:
            return TRAIN_GOOD.joinpath(*rest[1:])
        return TRAIN_GOOD / rest[0] if len(rest) == 1 and f"{TRAIN}/" not in names else None
    if first == TEST and rest[1:]:
        return PurePosixPath(TEST, "good" if rest[0].lower() in GOOD_NAMES else rest[0], *rest[1:])
    if "".join(filter(str.isalpha, first)) == MASKS and rest[1:]:
        return PurePosixPath(GROUND_TRUTH, *rest)
    if TRAIN in names:
        return None
    if first in GOOD_NAMES and rest:
        return TRAIN_GOOD.joinpath(*rest)
    return TRAIN_GOOD / relative.name if not rest and not names & set(GOOD_NAMES) else None
