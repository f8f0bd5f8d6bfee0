"""Which ground truth mask belongs to which test image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from train.data.layout import Layout, folders_of, list_images

Key = tuple[str, str]  # sub-folder of the kind's folder, and name without suffix; both in lower case


def match_masks(layout: Layout) -> dict[Path, Path]:
    """The mask of each test image that has one; masks and images that are left alone are noted.

    A mask of test/<kind>/000.jpg is ground_truth/<kind>/000_mask.png, or 000.png, or a file alone in a folder 000/, in
    any image format and any case.

    Raises:
        DataError: a folder that cannot be read.
    """
    root = layout.masks_root
    if root is None:
        return {}
    by_name: dict[str, list[Path]] = {}
    for folder in folders_of(root):
        by_name.setdefault(folder.name.lower(), []).append(folder)
    masks: dict[Path, Path] = {}
    for kind_folder in dict.fromkeys(folder for _, folder, _ in layout.tested):
        images = [path for path, folder, _ in layout.tested if folder == kind_folder]
        for folder in by_name.pop(kind_folder.name.lower(), []):
            masks |= match_kind(images, kind_folder, folder, layout.notes)
    straight = list_images(root, nested=False).images
    strays = [f"{path.name}/" for folders in by_name.values() for path in folders if list_images(path).images]
    strays += [path.name for path in straight]
    if strays:
        layout.notes.append(
            f"Left out: masks in {root} that belong to no folder of test/ ({', '.join(strays[:3])}); expected "
            "ground_truth/<defect>/<image>_mask.png."
        )
    return masks


def match_kind(images: Sequence[Path], kind_folder: Path, folder: Path, notes: list[str]) -> dict[Path, Path]:
    """The masks, which lie in `folder`, of the images of one kind; see `match_masks`."""
    files = list_images(folder).images
    by_key: dict[Key, Path] = {}
    # Of two files with one name, 000_mask.bmp and 000_mask.png, the PNG is MVTec AD's.
    for file in sorted(files, key=lambda path: path.suffix == ".png"):
        by_key[_key(file, folder)] = file
    places = Counter(_key(file, folder)[0] for file in files)
    names = Counter(path.stem.lower() for path in images)
    masks = {}
    for image in images:
        place, name = _key(image, kind_folder)
        own_folder = f"{place}/{name}".removeprefix("./").removeprefix("/")
        keys = [(place, f"{name}_mask"), (place, name)]
        if names[name] == 1:
            keys += [(".", f"{name}_mask"), (".", name)]
        if places[own_folder] == 1:
            keys += [key for key in by_key if key[0] == own_folder]
        mask = next((by_key[key] for key in keys if key in by_key), None)
        if mask is not None:
            masks[image] = mask
    _note_unmatched(images, masks, files, folder, notes)
    return masks


def _key(path: Path, folder: Path) -> Key:
    place = path.parent.relative_to(folder).as_posix().lower()
    return place, path.stem.lower()


def _note_unmatched(
    images: Sequence[Path], masks: dict[Path, Path], files: Sequence[Path], folder: Path, notes: list[str]
) -> None:
    unused = sorted(set(files) - set(masks.values()))
    if unused:
        notes.append(
            f"Left out: {len(unused)} of {len(files)} masks in {folder} that are named like no image, "
            f"{unused[0].name} among them; expected <image>_mask.png, as {images[0].stem}_mask.png."
        )
    bare = [image for image in images if image not in masks]
    if files and bare:
        notes.append(
            f"{len(bare)} of {len(images)} images in {bare[0].parent} have no mask in {folder}, {bare[0].name} among "
            "them; give every defective image one, or none."
        )
