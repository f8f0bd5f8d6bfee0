"""Folders in MVTec AD's layout, as training takes them: where the masks lie, and what the images of a test set are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# In any case.
GOOD_NAMES = ("good", "ok", "normal")
TEST, TRAIN = "test", "train"
MASKS = "groundtruth"  # the letters of ground_truth


def holds_masks(folder: Path) -> bool:
    """Whether a folder is that of the masks in MVTec AD's layout."""
    letters = "".join(filter(str.isalpha, folder.name.lower()))
    return letters == MASKS and has_folder(folder.parent, (TEST, TRAIN))


def has_folder(parent: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds one with such a name, in any case."""
    try:
        with os.scandir(parent) as entries:
            return any(entry.name.lower() in names and is_folder(entry) for entry in entries)
    except OSError:
        return False


def masks_around(place: Path) -> Path | None:
    """The folder of masks that a path leads to or into, if there is one."""
    return next((folder for folder in (place, *place.parents) if holds_masks(folder)), None)


def defect_of(folder: Path) -> str | None:
    """What the images in a folder really are, by its path or, failing that, by where its links lead.

    The folder in `test` tells; those in it do too where there is `test/good` or `train`, so that `test` is a test set.
    """
    for place in (absolute(folder), folder.resolve()):
        for kind in (place, *place.parents):
            test = kind.parent
            if test.name.lower() == TEST and (kind == place or _is_test_set(test)):
                return "good" if kind.name.lower() in GOOD_NAMES else kind.name
    return None


def _is_test_set(test: Path) -> bool:
    return has_folder(test, GOOD_NAMES) or has_folder(test.parent, (TRAIN,))


def absolute(path: Path) -> Path:
    """The path from the root, links left as they are."""
    return Path(os.path.normpath(path.absolute()))


def is_folder(path: Path | os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; False where nobody can tell."""
    try:
        return path.is_dir()
    except OSError:
        return False  # whoever reads it names the fault
