"""A folder of known defects: images of defective parts, never trained on, by which is chosen among what was fitted.

Images straight in it are of one kind. Folders in it are kinds, with masks in ground_truth/, and a folder test/ is MVTec
AD's, as the page exports it: its good images are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from model_repository.image_decoder.deep_pixels import white_of
from model_repository.image_decoder.image_decoding import SUFFIXES
from model_repository.image_size import ImageSize
from train.data.bit_depth import deep_images, warn_of_8_bits
from train.data.category import CategoryData, TestImage, fingerprint
from train.data.checks import MAX_ASPECT_SPREAD, MAX_SIDE_RATIO, identical_files
from train.data.layout import (
    Layout,
    find_folder,
    folders_of,
    is_good,
    is_ground_truth,
    is_test,
    list_images,
    list_parts,
    list_test,
    note_listing,
)
from train.data.mask_files import match_kind, match_masks
from train.data.pictures.loaded import LoadedImages
from train.data.pictures.loading import load_images
from train.data.shapes import read_shape
from train.errors import DataError
from train.support.files import readable_text
from train.support.progress import console

NO_KINDS = ("train", "mask", "masks")  # names of folders, in lower case
ONE_KIND = "known"  # of images that lie straight in the folder
EXPECTED = "expected images of defective parts, folders of them by kind, or test/<defect>"


@dataclass(frozen=True)
class KnownDefects:
    """The files of known defects; of files with the same bytes one is here.

    Attributes:
        root: their folder.
        images: each of them, with its kind and its mask where it has one.
        notes: one sentence for whatever was taken for something else, or left out.
    """

    root: Path
    images: tuple[TestImage, ...]
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of images and masks, in hexadecimal.

        Raises:
            DataError: a file cannot be read.
        """
        masks = [image.mask_path for image in self.images if image.mask_path is not None]
        return fingerprint([*(image.path for image in self.images), *masks])


def read_known_defects(root: Path) -> KnownDefects:
    """List the known defects of a folder; what is left out is in the notes.

    Raises:
        DataError: there is no such folder, it cannot be read, or no image of a defective part is in it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DataError(f"Known defects {readable_text(root)}: the folder {found}; {EXPECTED}.")
    layout, masks = _read_layout(root)
    n_good = sum(kind == "good" for *_, kind in layout.tested)
    if n_good:
        layout.notes.append(
            f"Left out of the known defects: {n_good} images in {root} that lie in a folder of good ones."
        )
    defects = [(path, kind) for path, _, kind in layout.tested if kind != "good"]
    if not defects:
        good = f"it holds {n_good} good ones; " if n_good else ""
        raise DataError(
            f"Known defects {readable_text(root)}: the folder holds no image of a defective part "
            f"({', '.join(SUFFIXES)}); {good}{EXPECTED}."
        )
    paths = [path for path, _ in defects]
    copies = {copy: same[0] for same in identical_files(paths) for copy in same[1:]}
    if copies:
        copy, first = next(iter(copies.items()))
        layout.notes.append(
            f"{len(copies)} of {len(paths)} known defects are copies, {copy.name} of {first.name} among them; each is "
            "counted once."
        )
    images = [
        TestImage(path=path, defect=kind, mask_path=masks.get(path))
        for path, kind in defects
        if path not in copies
    ]
    return KnownDefects(root, tuple(images), tuple(map(readable_text, layout.notes)))


def _read_layout(root: Path) -> tuple[Layout, dict[Path, Path]]:
    """Which images there are, good ones among them, and the masks of those that have one."""
    layout = Layout(root, masks_root=find_folder(root, is_ground_truth))
    flat = list_images(root, nested=False)
    test = find_folder(root, is_test)
    if test is not None:
        list_test(test, layout)
        if flat.images:
            layout.notes.append(
                f"Left out: {len(flat.images)} images straight in {root}, beside {test.name}/."
            )
        return layout, match_masks(layout)
    kinds = [
        folder
        for folder in folders_of(root)
        if folder != layout.masks_root and folder.name.lower() not in NO_KINDS
    ]
    for folder in kinds:
        listing = list_parts(folder, layout.notes)
        note_listing(folder, listing, layout.notes)
        kind = "good" if is_good(folder.name) else folder.name
        layout.tested += [(path, folder, kind) for path in listing.images]
    masks = match_masks(layout) if kinds else {}
    note_listing(root, flat, layout.notes)
    besides = {path.stem.lower(): path for path in flat.images if path.stem.lower().endswith("_mask")}
    parts = {path: f"{path.stem.lower()}_mask" for path in flat.images if path not in besides.values()}
    masks |= {path: besides[name] for path, name in parts.items() if name in besides}
    if parts and not kinds and layout.masks_root is not None:
        masks = match_kind(list(parts), root, layout.masks_root, layout.notes) | masks
    strays = set(besides.values()) - set(masks.values())
    if strays:
        layout.notes.append(
            f"Left out: {len(strays)} masks in {root} that are named like no image, {min(strays).name} among them; "
            "expected <image>_mask.png."
        )
    layout.tested += [(path, root, ONE_KIND) for path in parts]
    return layout, masks


def check_known_defects(known: KnownDefects, data: CategoryData) -> None:
    """Say what is odd about known defects, and refuse good images among them; files alone are compared.

    Raises:
        DataError: a training image is among the known defects.
    """
    for sentence in known.notes:
        console.print(sentence, style="yellow", markup=False)
    paths = [image.path for image in known.images]
    trained, tested = set(data.train_good), {image.path for image in data.test}
    also_tested = tested.intersection(paths)
    for same in identical_files(list(dict.fromkeys([*data.train_good, *tested, *paths]))):
        defects = [path for path in same if path in paths]
        if defects and (good := trained.intersection(same)):
            raise good_among_defects(defects[0], min(good), "byte for byte")
        if tested.intersection(same):
            also_tested.update(defects)
    also_trained = trained.intersection(paths)
    if also_trained:
        raise good_among_defects(min(also_trained), min(also_trained), "the same file")
    if also_tested:
        console.print(
            f"Warning: {len(also_tested)} of {len(paths)} known defects of {data.category!r} are test images, too: "
            "what they choose suits these, and the evaluation flatters; keep some defects for the test alone.",
            style="yellow",
            markup=False,
        )
    _tell_other_sizes(known, data)


def good_among_defects(defect: Path, good: Path, how: str) -> DataError:
    """The error about an image that is both known defect and trained on as good."""
    return DataError(
        f"Known defect {readable_text(defect)} is the training image {readable_text(good)}, {how}; expected images "
        "of defective parts that nothing is trained on; remove it from one of both folders."
    )


def load_known_defects(
    known: KnownDefects,
    *,
    image_size: ImageSize,
    strict: bool,
    bit_depth: int,
    keep_aspect: bool,
    category: str,
    reference: Reference | None = None,
) -> LoadedImages:
    """Read known defects as the category's images are read; broken ones are skipped and told.

    Raises:
        DataError: none can be read, one is brighter than the bit depth allows, or a broken one when strict.
    """
    paths = [image.path for image in known.images]
    for image in deep_images(paths):
        if image.brightest > white_of(bit_depth):
            raise DataError(
                f"Known defect {readable_text(image.path)} has values up to {image.brightest:,g}; expected at most "
                f"{white_of(bit_depth):,}, the white of the run's bit depth {bit_depth}; take it as the good images "
                "were taken, or remove it."
            )
    if bit_depth != 8:
        warn_of_8_bits(paths, bit_depth, category=category, what="known defective")
    return load_images(
        paths,
        image_size=image_size,
        strict=strict,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        what="known defective images",
        reference=reference,
    )


def require_other_pixels(
    known: Sequence[TestImage],
    pixels: NDArray[np.uint8],
    *,
    good: NDArray[np.uint8],
    good_paths: Sequence[Path],
) -> None:
    """Refuse known defects [M, H, W, 3] with the pixels of a training image [N, H, W, 3]: saved anew, or renamed.

    Raises:
        DataError: the first such pair.
    """
    of_good = {
        hashlib.sha256(image.tobytes()).digest(): path for image, path in zip(good, good_paths, strict=True)
    }
    for image, own in zip(known, pixels, strict=True):
        path = of_good.get(hashlib.sha256(own.tobytes()).digest())
        if path is not None:
            raise good_among_defects(image.path, path, "pixel for pixel")


def _tell_other_sizes(known: KnownDefects, data: CategoryData) -> None:
    good = [size for path in data.train_good if (size := read_shape(path)) is not None]
    if not good:
        return
    sides, aspects = sorted(size.side for size in good), sorted(size.aspect for size in good)
    other = [
        size
        for image in known.images
        if (size := read_shape(image.path)) is not None
        and (
            size.side > MAX_SIDE_RATIO * sides[0]
            or sides[-1] > MAX_SIDE_RATIO * size.side
            or size.aspect > MAX_ASPECT_SPREAD * aspects[0]
            or aspects[-1] > MAX_ASPECT_SPREAD * size.aspect
        )
    ]
    if other:
        console.print(
            f"Warning: {len(other)} of {len(known.images)} known defects have another size or shape than good images "
            f"of {data.category!r}, {other[0]} among them; {good[0]} is a good one; a defect is seen at another scale "
            "there; take all with one camera setting.",
            style="yellow",
            markup=False,
        )
