"""Which files of a folder are good images to train on, which are tested, and which masks belong to these.

The layout is MVTec AD's. What deviates from it is taken where its meaning is plain, and told in a note. What is left
out is told too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_repository.image_decoder.image_decoding import SUFFIXES
from train.errors import DataError
from train.support.files import readable_text

GOOD_NAMES = ("good", "ok", "normal")  # of folders, in any case
# Of Windows, macOS and a NAS, in any case, beside names that start with a dot.
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
MASK_FOLDERS = ("mask", "masks", "ground_truth", "groundtruth")  # of a kind's images, in any case
EXPECTED = "expected train/good/, test/good/, test/<defect>/ and ground_truth/<defect>/<image>_mask.png"


@dataclass(frozen=True)
class Listing:
    """The image files of a folder and its sub-folders, sorted, and the names of files that are none."""

    images: tuple[Path, ...]
    others: tuple[str, ...]
    subfolders: tuple[str, ...]  # that hold some of the images


@dataclass
class Layout:
    """What a category's folder holds.

    Attributes:
        train_dir: the folder of good images to train on.
        train_good: these images.
        tested: each test image, with the folder of its kind in `test/` and the kind, `good` for good ones.
        masks_root: the folder `ground_truth`, where there is one.
        notes: one sentence for whatever was taken for something else, or left out.
    """

    train_dir: Path
    train_good: tuple[Path, ...] = ()
    tested: list[tuple[Path, Path, str]] = field(default_factory=list)
    masks_root: Path | None = None
    notes: list[str] = field(default_factory=list)


def read_layout(root: Path) -> Layout:
    """List a category's files.

    Raises:
        DataError: a folder that cannot be read, or images of which it is not plain whether they are good.
    """
    masks_root, test = find_folder(root, is_ground_truth), find_folder(root, is_test)
    layout = Layout(root, masks_root=masks_root)
    layout.train_dir, layout.train_good = _training_images(root, layout.notes)
    if test is not None:
        list_test(test, layout)
    known = {layout.train_dir, layout.train_dir.parent, test, masks_root}
    note_left_out([f for f in folders_of(root) if f not in known], layout.notes, EXPECTED)
    straight = list_images(root, nested=False).images
    if straight and layout.train_dir != root:
        layout.notes.append(f"Left out: {len(straight)} images straight in {root}; {EXPECTED}.")
    return layout


def list_images(folder: Path, *, nested: bool = True) -> Listing:
    """The image files of a folder, by suffix; links are followed, and hidden files left out.

    Raises:
        DataError: a folder that cannot be read.
    """
    images: list[Path] = []
    others: list[str] = []
    subfolders: list[str] = []
    visited: set[str] = set()
    for current, names, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        place = Path(current)
        visited.add(os.path.realpath(current))
        hidden = [name for name in names if is_clutter(name)]
        others += [f"{name}/" for name in hidden if _holds_images(place / name)]
        names[:] = [
            name
            for name in names
            if nested and name not in hidden and os.path.realpath(place / name) not in visited
        ]
        here = [place / name for name in files if is_image(place / name)]
        images += here
        others += [
            name if (place / name).exists() else f"{name} (a link to nothing)"
            for name in files
            if not is_image(place / name) and _matters(name)
        ]
        if here and place != folder:
            subfolders.append(place.relative_to(folder).as_posix())
    return Listing(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(subfolders)))


def find_folder(parent: Path, fits: Callable[[str], bool]) -> Path | None:
    """The folder in `parent` whose name fits, whatever its case; None where there is none.

    Raises:
        DataError: there are several.
    """
    fitting = [folder for folder in folders_of(parent) if fits(folder.name)]
    if len(fitting) > 1:
        names = " and ".join(folder.name for folder in fitting)
        raise DataError(f"{parent} holds both {names}; expected one of them; put their files into one.")
    return fitting[0] if fitting else None


def folders_of(parent: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and those of the operating system are left out.

    Raises:
        DataError: it cannot be read.
    """
    try:
        folders = sorted(path for path in parent.iterdir() if path.is_dir() and not is_clutter(path.name))
    except OSError as error:
        _unreadable(error)
    return folders


def is_test(name: str) -> bool:
    """Whether a folder of that name holds the test set."""
    return name.lower() == "test"


def is_ground_truth(name: str) -> bool:
    """Whether a folder of that name holds masks: `ground_truth`, `Ground Truth`, `GroundTruth`."""
    return "".join(filter(str.isalpha, name.lower())) == "groundtruth"


def is_good(name: str) -> bool:
    """Whether a folder of that name holds good images."""
    return name.lower() in GOOD_NAMES


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system leaves behind."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_image(path: Path) -> bool:
    """Whether a path is an image file, by its suffix."""
    return path.suffix.lower() in SUFFIXES and not is_clutter(path.name) and path.is_file()


def note_left_out(folders: Iterable[Path], notes: list[str], expected: str) -> None:
    """Note those of the folders that hold images, which nobody looks at."""
    left_out = {folder: len(list_images(folder).images) for folder in folders}
    shown = [f"{folder.name}/ ({count} images)" for folder, count in left_out.items() if count]
    if shown:
        parent = next(iter(left_out)).parent
        notes.append(f"Left out: {', '.join(shown)} in {parent}; {expected}.")


def note_listing(folder: Path, listing: Listing, notes: list[str]) -> None:
    """Note sub-folders whose images are taken, and files that are no images."""
    if listing.subfolders:
        notes.append(
            f"{folder} holds images in sub-folders too ({_some(listing.subfolders)}): all {len(listing.images)} are "
            "taken."
        )
    if listing.others:
        notes.append(
            f"Left out: {_some(listing.others)} in {folder}; expected files that end in {', '.join(SUFFIXES)}."
        )


def _training_images(root: Path, notes: list[str]) -> tuple[Path, tuple[Path, ...]]:
    """The folder of good images, and these."""
    train = find_folder(root, lambda name: name.lower() == "train")
    if train is not None:
        good, others = find_folder(train, is_good), [f for f in folders_of(train) if not is_good(f.name)]
        straight = list_images(train, nested=False).images
        if good is not None:
            note_left_out(others, notes, "only good images are trained on")
            if straight:
                notes.append(f"Left out: {len(straight)} images straight in {train}; expected train/good/.")
            return good, _taken_as(good, "train/good", notes)
        if straight and not others:
            return train, _taken_as(train, "train/good", notes)
        if others:
            raise DataError(
                f"{train} has no folder good/; it holds {_some([f'{path.name}/' for path in others])} and "
                f"{len(straight)} images; {EXPECTED}; name the folder of good images good."
            )
    good = find_folder(root, is_good)
    if good is not None:
        return good, _taken_as(good, "train/good", notes)
    listing = list_images(root, nested=False)
    extra = [f for f in folders_of(root) if not is_test(f.name) and not is_ground_truth(f.name)]
    filled = [f"{folder.name}/" for folder in extra if list_images(folder).images]
    if filled and not listing.images:
        raise DataError(
            f"{root} has no folder train/good; its images lie in {_some(filled)}; {EXPECTED}; put images of good parts "
            "into train/good/."
        )
    note_listing(root, listing, notes)
    return root, listing.images


def list_parts(folder: Path, notes: list[str]) -> Listing:
    """The images of parts in a folder: without masks that lie beside them, which are noted."""
    listing = list_images(folder)
    stems = {path.stem.lower() for path in listing.images}

    def is_mask(path: Path) -> bool:
        stem, places = path.stem.lower(), path.relative_to(folder).parts[:-1]
        named_so = stem.endswith("_mask") and stem.removesuffix("_mask") in stems
        return named_so or any(place.lower() in MASK_FOLDERS for place in places)

    masks = [path for path in listing.images if is_mask(path)]
    if not masks:
        return listing
    notes.append(
        f"Left out: {len(masks)} images in {folder} that are masks by their names, "
        f"{masks[0].relative_to(folder)} among them; expected ground_truth/<defect>/<image>_mask.png; move them there."
    )
    images = tuple(path for path in listing.images if path not in masks)
    places = {path.parent.relative_to(folder).as_posix() for path in images}
    return Listing(images, listing.others, tuple(name for name in listing.subfolders if name in places))


def _taken_as(folder: Path, meaning: str, notes: list[str]) -> tuple[Path, ...]:
    """The images of a folder, with a note where it is called otherwise than it should be."""
    listing = list_parts(folder, notes)
    if not folder.as_posix().endswith(meaning):
        notes.append(f"{folder}/ is taken for {meaning}/: {len(listing.images)} images.")
    note_listing(folder, listing, notes)
    return listing.images


def list_test(test: Path, layout: Layout) -> None:
    """Add the images of a folder of defect kinds, and of good ones, to a layout."""
    straight = list_images(test, nested=False)
    if straight.images:
        layout.notes.append(
            f"Left out: {len(straight.images)} images straight in {test}, of which nobody knows whether they are good; "
            "expected test/good/ and test/<defect>/; put each into one of these."
        )
    if hidden := [name for name in straight.others if name.endswith("/")]:
        layout.notes.append(
            f"Left out: {', '.join(hidden)} in {test}, which holds images; it is no defect kind."
        )
    for folder in folders_of(test):
        kind = "good" if is_good(folder.name) else folder.name
        if kind == folder.name:
            listing = list_parts(folder, layout.notes)
            note_listing(folder, listing, layout.notes)
            if not listing.images:
                layout.notes.append(f"{folder} holds no images; put some there, or remove it.")
            images = listing.images
        else:
            images = _taken_as(folder, "test/good", layout.notes)
        layout.tested += [(path, folder, kind) for path in images]


def _holds_images(folder: Path) -> bool:
    return any(
        path.suffix.lower() in SUFFIXES and not path.name.startswith("._") for path in folder.rglob("*")
    )


def _matters(name: str) -> bool:
    """Whether a file that is no image is worth a word: one of the operating system is not."""
    return not is_clutter(name) or (Path(name).suffix.lower() in SUFFIXES and not name.startswith("._"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unreadable(error: OSError) -> None:
    path = readable_text(str(error.filename))
    raise DataError(
        f"{path} cannot be read ({error.strerror}); make it readable for this user, or move it away."
    ) from None
