"""Checks on a category's files before time is spent on them: odd sizes, copies, another product's images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import UnidentifiedImageError

from model_repository.image_decoder.image_decoding import (
    ImageError,
    naming,
    naming_damage,
    open_image,
)
from train.data.category import CategoryData
from train.data.shapes import read_shapes
from train.errors import DataError
from train.support.progress import console

MAX_SIDE_RATIO = 2.0  # longer side of the largest image over that of the smallest
MAX_ASPECT_SPREAD = 1.5  # width over height, of the widest image over that of the tallest


def check_training_data(data: CategoryData, *, fingerprints: Mapping[str, str], force: bool) -> None:
    """Warn about images that are likely a mistake; refuse those that another category was trained on, unless forced.

    Raises:
        DataError: see `require_own_images`.
    """
    if not force:
        require_own_images(data, fingerprints=fingerprints)
    for sentence in (*size_warnings(data), *page_warnings(data), *copy_warnings(data)):
        console.print(f"Warning: {sentence}", style="yellow", markup=False)


def require_own_images(data: CategoryData, *, fingerprints: Mapping[str, str]) -> None:
    """Refuse images that another category was trained on: one of the two products would be judged by the other.

    A category that was itself trained on these images before has been accepted with --force. `fingerprints` are those
    of the training images of all trained categories, by name.

    Raises:
        DataError: both names and the remedy.
    """
    others = {category: other for category, other in fingerprints.items() if category != data.category}
    if not others:
        return
    fingerprint = data.fingerprint()
    if fingerprints.get(data.category) == fingerprint:
        return
    for category, other in others.items():
        if other == fingerprint:
            raise DataError(
                f"Categories {data.category!r} and {category!r} have the same {len(data.train_good)} training "
                f"images, those in {data.train_good[0].parent}; give each product its own, or use --force to train it "
                "all the same."
            )


def size_warnings(data: CategoryData) -> list[str]:
    """Images whose sizes or shapes are far apart: all are seen at one size, so they would not look alike."""
    sizes = read_shapes(_all_images(data))
    if not sizes:
        return []
    smallest, largest = min(sizes, key=lambda size: size.side), max(sizes, key=lambda size: size.side)
    tallest, widest = min(sizes, key=lambda size: size.aspect), max(sizes, key=lambda size: size.aspect)
    warnings = []
    if largest.side > MAX_SIDE_RATIO * smallest.side:
        warnings.append(
            f"images of {data.category!r} differ in size, from {smallest} to {largest}; all are resized to one size, "
            "so a part would be seen at several scales; take them with one camera setting."
        )
    if widest.aspect > MAX_ASPECT_SPREAD * tallest.aspect:
        warnings.append(
            f"images of {data.category!r} differ in shape, from {tallest} to {widest}; parts are seen at several "
            "scales, or distorted differently with --aspect stretch; crop them to one shape."
        )
    return warnings


def page_warnings(data: CategoryData) -> list[str]:
    """TIFFs of several pages, of which the first is read."""
    tiffs = [path for path in _all_images(data) if path.suffix.lower() in (".tif", ".tiff")]
    several = [path for path in tiffs if count_pages(path) > 1]
    if not several:
        return []
    return [
        f"{len(several)} images of {data.category!r} are TIFFs of several pages, {_short(several[0])} among them; the "
        "first page of each is read; save the others as files of their own if they are images of parts."
    ]


def count_pages(path: Path) -> int:
    """Pages of an image file; 0 for a broken one, which reading the images will name."""
    try:
        with naming(path), naming_damage(), open_image(path) as image:
            return int(getattr(image, "n_frames", 1))
    except (ImageError, UnidentifiedImageError):
        return 0


def copy_warnings(data: CategoryData) -> list[str]:
    """Files with the same bytes: test images that are trained on, copies to train on, test images in two folders."""
    defect_of = {image.path: image.defect for image in data.test}
    copies = {paths: set(paths) & defect_of.keys() for paths in identical_files(_all_images(data))}
    leaks = [paths for paths, tested in copies.items() if tested and len(tested) < len(paths)]
    repeated = [paths for paths, tested in copies.items() if len(paths) - len(tested) > 1]
    contradictory = [
        paths for paths, tested in copies.items() if len({defect_of[path] for path in tested}) > 1
    ]
    warnings = []
    if leaks:
        n_tested = sum(len(copies[paths]) for paths in leaks)
        trained, tested = _one_of_each(leaks[0], copies[leaks[0]])
        warnings.append(
            f"LEAK: {n_tested} of {len(data.test)} test images of {data.category!r} are trained on as well, {tested} "
            f"being {trained}, byte for byte; measures will be too good; remove them from one side."
        )
    if repeated:
        first, second = [path for path in repeated[0] if path not in defect_of][:2]
        n_copies = sum(len(paths) - len(copies[paths]) - 1 for paths in repeated)
        warnings.append(
            f"{n_copies} of {len(data.train_good)} training images of {data.category!r} are copies, {_short(second)} "
            f"of {_short(first)} among them; they count double, and held-out images may be trained on; remove them."
        )
    if contradictory:
        kinds = {defect_of[path]: path for path in contradictory[0] if path in defect_of}
        first_two = " and ".join(_short(path) for path in list(kinds.values())[:2])
        warnings.append(
            f"{len(contradictory)} test images of {data.category!r} lie in several folders, {first_two} among them; "
            "they are judged once as each; keep them where they belong."
        )
    return warnings


def identical_files(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Groups of two or more files with the same bytes, each in the given order; only files of one length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        with suppress(OSError):  # reading the images will name it
            by_length[path.stat().st_size].append(path)
    by_content: dict[bytes, list[Path]] = defaultdict(list)
    for same_length in by_length.values():
        if len(same_length) > 1:
            for path in same_length:
                with suppress(OSError):
                    by_content[hashlib.sha256(path.read_bytes()).digest()].append(path)
    return [tuple(group) for group in by_content.values() if len(group) > 1]


def _all_images(data: CategoryData) -> list[Path]:
    return [*data.train_good, *(image.path for image in data.test)]


def _one_of_each(paths: Sequence[Path], tested: set[Path]) -> tuple[str, str]:
    trained = next(path for path in paths if path not in tested)
    return _short(trained), _short(next(path for path in paths if path in tested))


def _short(path: Path) -> str:
    """The last three parts of a path: train/good/000.png."""
    return "/".join(path.parts[-3:])
